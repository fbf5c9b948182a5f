"""Which landmarks are neighbors, and how their votes are merged (section 3.2 of the paper).

Every landmark votes once for its own position and once for each of its K nearest landmarks on the mean
shape, so there are N * (1 + K) votes; vote 0 of a landmark is for itself, vote 1 + k for neighbor k.
The merged position of landmark n is a weighted sum of the votes it received. Both merges are the same
sum with other weights, stored as one sparse matrix in compressed rows.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipnet_fast.layouts import MeanShape, load_mean_shape

Merge = Literal["mean", "official"]

# As in csrc/engine/plan_file.cpp: a file says how many there are, and distances between them all take their square.
MAX_LANDMARKS = 4096


@dataclass(frozen=True, eq=False)
class NeighborTable:
    """Neighbors of every landmark and the weights that merge their votes.

    Attributes:
        neighbors: (N, K) int64, the K nearest landmarks of each landmark, nearest first.
        starts: (N + 1,) int32, row n of the sparse matrix lies at ``starts[n]:starts[n + 1]``.
        sources: (N * (1 + K),) int32, which vote each entry reads: ``m * (1 + K) + v`` for vote v of landmark m.
        weights: (N * (1 + K),) float32, positive; each row sums to 1.
    """

    neighbors: Tensor
    starts: Tensor
    sources: Tensor
    weights: Tensor
    _moved: dict[torch.device, "NeighborTable"] = field(default_factory=dict, repr=False)

    @property
    def num_landmarks(self) -> int:
        """N."""
        return self.neighbors.shape[0]

    @property
    def num_neighbors(self) -> int:
        """K."""
        return self.neighbors.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.neighbors.device

    def to(self, device: torch.device | str) -> "NeighborTable":
        """The same table on another device; each copy is made once and kept."""
        device = torch.device(device)
        if device == self.device:
            return self
        if device not in self._moved:
            self._moved[device] = NeighborTable(
                self.neighbors.to(device), self.starts.to(device), self.sources.to(device), self.weights.to(device)
            )
        return self._moved[device]


def neighbor_table(mean_shape: Any, num_neighbors: int, merge: Merge = "mean") -> NeighborTable:
    """Find each landmark's nearest neighbors on a mean shape and lay out the merge weights.

    Args:
        mean_shape: a layout's name, a text file, or (N, 2) coordinates, 1 <= N <= 4096; any unit.
        num_neighbors: K >= 0; more than N - 1 is cut to N - 1 with a warning.
        merge: ``"mean"`` weighs the own vote and all received ones equally (section 3.2); ``"official"``
            does as the official code, which repeats each list of received votes cyclically up to the
            longest one, so that some votes count more than others and the own one counts
            1 / (longest + 1). A landmark that receives no vote keeps its own position in both.

    Returns:
        The table, on the CPU. Of landmarks at equal distance, the lower index is the nearer one.

    Raises:
        ValueError: a bad mean shape, a negative count, or an unknown merge.
    """
    points = load_mean_shape(mean_shape)
    if len(points) > MAX_LANDMARKS:
        raise ValueError(f"neighbor_table: mean_shape: expected at most {MAX_LANDMARKS} landmarks, got {len(points)}")
    num_neighbors = cap_num_neighbors(num_neighbors, len(points))
    if merge not in get_args(Merge):
        raise ValueError(f"neighbor_table: merge: expected one of {get_args(Merge)}, got {merge!r}")
    neighbors = nearest_neighbors(points, num_neighbors)
    starts, sources, weights = _merge_rows(neighbors, merge)
    return NeighborTable(
        torch.from_numpy(neighbors),
        torch.from_numpy(starts),
        torch.from_numpy(sources),
        torch.from_numpy(weights),
    )


def cap_num_neighbors(num_neighbors: int, num_landmarks: int) -> int:
    """Check K and cut it to the N - 1 neighbors there are, with a warning."""
    if isinstance(num_neighbors, bool) or not isinstance(num_neighbors, (int, np.integer)) or num_neighbors < 0:
        raise ValueError(f"num_neighbors: expected an integer >= 0, got {num_neighbors!r}")
    if num_neighbors >= num_landmarks:
        warnings.warn(
            f"num_neighbors={num_neighbors} is more than the {num_landmarks - 1} neighbors that "
            f"{num_landmarks} landmarks have; using {num_landmarks - 1}",
            stacklevel=3,
        )
        return num_landmarks - 1
    return int(num_neighbors)


def nearest_neighbors(points: MeanShape, num_neighbors: int) -> npt.NDArray[np.int64]:
    """(N, K) indices of the nearest other landmarks, nearest first, in float64 with stable ties."""
    # Below 1, exactly: squares neither overflow nor vanish, whatever the unit is.
    points = np.ldexp(points, -np.frexp(np.abs(points).max())[1])
    squared = ((points[:, None] - points[None]) ** 2).sum(axis=-1)
    # Coincident landmarks have distance 0 too, so the landmark itself is put first by value, not by luck.
    np.fill_diagonal(squared, -1.0)
    return np.argsort(squared, axis=1, kind="stable")[:, 1 : 1 + num_neighbors].astype(np.int64)


def _merge_rows(
    neighbors: npt.NDArray[np.int64], merge: Merge
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    num_landmarks, num_neighbors = neighbors.shape
    received = np.argsort(neighbors, axis=None, kind="stable")
    lengths = np.bincount(neighbors.ravel(), minlength=num_landmarks)
    firsts = np.cumsum(lengths) - lengths
    counts = np.ones(len(received))
    if merge == "official" and num_neighbors:
        # Entry i of a list of length L, repeated to `longest`, appears once more for i < longest mod L.
        repeats, more = np.divmod(lengths.max(), np.maximum(lengths, 1))
        position = np.arange(len(received)) - np.repeat(firsts, lengths)
        counts = np.repeat(repeats, lengths) + (position < np.repeat(more, lengths))
    totals = 1 + np.bincount(neighbors.ravel()[received], counts, minlength=num_landmarks)

    # Each row begins with the landmark's own vote.
    votes_per_landmark = 1 + num_neighbors
    votes = np.arange(num_landmarks * votes_per_landmark).reshape(num_landmarks, votes_per_landmark)
    sources = np.insert(votes[:, 1:].ravel()[received], firsts, votes[:, 0])
    weights = np.insert(counts.astype(np.float64), firsts, 1.0) / np.repeat(totals, 1 + lengths)
    starts = np.concatenate(([0], np.cumsum(1 + lengths)))
    return starts.astype(np.int32), sources.astype(np.int32), weights.astype(np.float32)
