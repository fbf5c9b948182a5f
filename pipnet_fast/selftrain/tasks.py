"""What pseudo-labelled faces train in a round: the curriculum of the paper's section 3.3 as records.

The score layer is shared by the features and the features pooled once and twice, 2x2 each time, by their maximum; at
stride 32 these are maps of strides 32, 64 and 128 (Figure 8). No layer is added, and inference does not change.
"""

from dataclasses import dataclass
from typing import Literal

Method = Literal["stc", "selftraining", "dann", "gsl"]


@dataclass(frozen=True)
class Task:
    """Which maps a pseudo-labelled face trains. Labelled faces train the whole head at the network's stride always.

    Attributes:
        name: for folders and tables.
        levels: of the score maps: 0 is the network's own, 1 and 2 are the coarser ones.
        offsets: whether offsets and neighbors are trained, at level 0.
        labels: whether it takes pseudo-labels; otherwise pictures alone.
    """

    name: str
    levels: tuple[int, ...] = ()
    offsets: bool = False
    labels: bool = True

    def check_grid(self, input_size: int, stride: int) -> None:
        """Raise ValueError where the network's grid cannot be pooled as often as the task asks for."""
        side, deepest = input_size // stride, max(self.levels, default=0)
        if side % 2**deepest:
            raise ValueError(
                f"selftrain: {self.name}: expected a grid whose side is a multiple of {2**deepest}, to be pooled "
                f"{deepest} time(s), got {side} cells of input_size = {input_size} at stride = {stride}"
            )


# Figure 8's, from the easiest to the whole of the supervised task; and adversarial alignment (Ganin et al. 2016).
TASKS = {
    task.name: task
    for task in (
        Task("task1", levels=(2,)),
        Task("task2", levels=(1,)),
        Task("task3", levels=(0,), offsets=True),
        Task("dann", labels=False),
    )
}

# Rounds that follow the supervised one: self-training with curriculum, self-training without, domain-adversarial
# training, none. Three rounds of task 3 are where the paper found it to converge.
SEQUENCES: dict[Method, tuple[str, ...]] = {
    "stc": ("task1", "task2", "task3", "task3", "task3"),
    "selftraining": ("task3", "task3", "task3"),
    "dann": ("dann",),
    "gsl": (),
}
