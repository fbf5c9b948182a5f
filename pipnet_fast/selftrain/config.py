"""What a run of self-training is: a training run, the rounds that follow it, and the faces without labels."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from pipnet_fast.selftrain.labels import SHARD_SIZE
from pipnet_fast.selftrain.objectives import ScoreMean
from pipnet_fast.selftrain.tasks import SEQUENCES, TASKS, Method, Task
from pipnet_fast.train._fields import MAY_CHANGE, check_types
from pipnet_fast.train.config import STRIDES, TrainConfig, expect, group_differences, read_group, read_groups

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class RoundsConfig:
    """The rounds that follow supervised training."""

    method: Annotated[
        Method,
        "self-training with curriculum (stc), without (selftraining), domain-adversarial training, or none (gsl)",
    ] = "stc"
    tasks: Annotated[tuple[str, ...], f"other tasks than the method's, of {', '.join(TASKS)}, one a round"] = ()
    restart: Annotated[bool, "train a new network each round, as the official code; else go on with the last one"] = (
        True
    )
    supervised: Annotated[str | None, "model file that stands in for the supervised round's"] = None
    score_mean: Annotated[
        ScoreMean, "whether a coarse map counts by its cells, as in the official code, or each face the same"
    ] = "cells"
    min_score: Annotated[float | None, "keep pseudo-labelled faces from this mean score on, 0..1"] = None
    max_disagreement: Annotated[
        float | None, "keep those whose mirrored crop gives the same landmarks up to this share of the face's diagonal"
    ] = None
    domain_weight: Annotated[float, "weight of the domain term of DANN"] = 0.1
    label_batch: Annotated[int, "faces per forward pass that predicts pseudo-labels", MAY_CHANGE] = 64
    shard_faces: Annotated[int, "faces per file of pseudo-labels, which are lost at most when a process dies"] = (
        SHARD_SIZE
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_types("selftrain", self)
        for task in self.tasks:
            expect("selftrain.tasks", task, task in TASKS, f"tasks of {', '.join(TASKS)}")
        for name in ("label_batch", "shard_faces"):
            expect(f"selftrain.{name}", getattr(self, name), getattr(self, name) >= 1, "1 or more")
        score, disagreement = self.min_score, self.max_disagreement
        expect("selftrain.min_score", score, score is None or 0 <= score <= 1, "a number from 0 to 1")
        expect("selftrain.max_disagreement", disagreement, disagreement is None or disagreement > 0, "a number > 0")
        expect("selftrain.domain_weight", self.domain_weight, 0 <= self.domain_weight < float("inf"), "a number >= 0")

    def sequence(self) -> tuple[Task, ...]:
        """The tasks of the rounds."""
        return tuple(TASKS[name] for name in self.tasks or SEQUENCES[self.method])


@dataclass(frozen=True)
class UnlabelledConfig:
    """Faces without labels, or whose labels are not looked at: one table [[unlabelled]] of several."""

    dataset: Annotated[str, "images, for a folder of pictures and videos, or a data set's name"] = "images"
    root: Annotated[str, "its folder", MAY_CHANGE] = ""
    split: Annotated[str | None, "by default all of images and celeba, train of others"] = None
    options: Annotated[dict[str, Any], "of the reader"] = field(default_factory=dict)
    crop_scale: Annotated[
        float | None,
        "crop the tight boxes of labels or detector grown so much; by default as the set's own boxes ask for, and a "
        "detector's as the labelled set is cropped",
    ] = None
    top_shift: Annotated[float, "as for the labelled set"] = 0.0
    detector: Annotated[str, "finds faces where the set has no boxes"] = "auto"

    def __post_init__(self) -> None:
        """Check the types."""
        check_types("unlabelled", self)
        if self.top_shift and self.crop_scale is None:
            raise ValueError("unlabelled.top_shift: shifts the crops of crop_scale; set crop_scale too")

    def chosen_split(self) -> str:
        """The split, given or by default."""
        return self.split or ("all" if self.dataset in ("images", "celeba") else "train")


@dataclass(frozen=True)
class SelfTrainConfig(TrainConfig):
    """A run of self-training. Contradictions raise ValueError, with what to do about them."""

    selftrain: RoundsConfig = field(default_factory=RoundsConfig)
    unlabelled: tuple[UnlabelledConfig, ...] = ()

    def __post_init__(self) -> None:
        """Check what concerns several groups."""
        super().__post_init__()
        tasks = self.selftrain.sequence()
        if tasks and self.model.kind != "pipnet":
            raise ValueError(f"model.kind: expected pipnet, whose tasks self-training has, got {self.model.kind!r}")
        if tasks and not self.unlabelled:
            raise ValueError("unlabelled: expected at least one set of faces without labels, got none; add one")
        for task in tasks:
            task.check_grid(self.model.input_size, self.model.stride or STRIDES["pipnet"][0])

    @classmethod
    def groups(cls) -> dict[str, Any]:
        """The class of each group by its name; not the sets of ``unlabelled``, of which there are many."""
        return {**TrainConfig.groups(), "selftrain": RoundsConfig}

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any]) -> "Self":
        """From tables of groups and a list ``unlabelled`` of tables.

        Raises:
            ValueError: an unknown table or entry, or a bad value.
        """
        sets = tables.get("unlabelled", [])
        if not isinstance(sets, (list, tuple)):
            raise ValueError(f"unlabelled: expected a list of tables, each [[unlabelled]], got {sets!r}")
        groups = read_groups(cls.groups(), {name: table for name, table in tables.items() if name != "unlabelled"})
        return cls(**groups, unlabelled=tuple(read_group("unlabelled", UnlabelledConfig, values) for values in sets))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``from_dict`` takes them."""
        return {**asdict(self), "unlabelled": [asdict(values) for values in self.unlabelled]}

    def differences(self, other: "Self") -> list[str]:
        """As for a training run, with those of the sets without labels."""
        found = super().differences(other)
        ours, theirs = self.unlabelled, other.unlabelled
        if len(ours) != len(theirs):
            return [*found, f"unlabelled: {len(theirs)} sets, not {len(ours)}"]
        for number, pair in enumerate(zip(ours, theirs, strict=True)):
            found += group_differences(f"unlabelled[{number}]", UnlabelledConfig, *pair)
        return found

    def round_config(self, number: int, folder: str) -> TrainConfig:
        """The training run of a round, 0 for the supervised one; its seed is the run's plus the number."""
        seed = (self.system.seed + number) % 2**32
        return TrainConfig(self.model, self.data, self.optimization, replace(self.system, out=folder, seed=seed))
