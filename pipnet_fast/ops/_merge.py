"""What both operations share around the votes: the winner's rule, the merge, and the checks of the table."""

from typing import NamedTuple

import torch
from torch import Tensor

from pipnet_fast.ops.types import HeadMaps

# The compiled kernels carry the winning cell as a float32 beside its score, exact up to here.
MAX_CELLS = 1 << 24


class MergeTensors(NamedTuple):
    """The sparse matrix of a ``NeighborTable``, as the operations take it."""

    starts: Tensor
    sources: Tensor
    weights: Tensor


def winning_cells(score: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and flat indices (B, N) of the winning cells of a score map (B, N, H, W).

    The first of equal scores wins. A NaN counts as minus infinity, so it never wins over a number.
    """
    flat = score.flatten(2)
    flat = torch.where(flat.isnan(), -torch.inf, flat)
    cell = flat.argmax(dim=2)
    return flat.gather(2, cell.unsqueeze(2)).squeeze(2), cell


def votes_at(maps: HeadMaps, cell: Tensor) -> Tensor:
    """Votes (B, N, 1 + K, 2) that dense maps have at cells (B, N), in cells from the corner of those."""
    batch, landmarks, height, width = maps.score.shape
    neighbors = maps.neighbor_x.shape[1] // landmarks
    own = torch.stack((maps.offset_x, maps.offset_y), dim=4).view(batch, landmarks, 1, height * width, 2)
    others = torch.stack((maps.neighbor_x, maps.neighbor_y), dim=4)
    others = others.view(batch, landmarks, neighbors, height * width, 2)
    at = cell.view(batch, landmarks, 1, 1, 1).expand(-1, -1, 1 + neighbors, 1, 2)
    return torch.cat((own, others), dim=2).gather(3, at).squeeze(3)


def merge_votes(votes: Tensor, cell: Tensor, grid: tuple[int, int], table: MergeTensors) -> Tensor:
    """Merge votes (B, N, 1 + K, 2), in cells from the corner of the voter's own cell (B, N), into (B, N, 2) frac."""
    height, width = grid
    corner = torch.stack((cell % width, cell // width), dim=2).to(votes.dtype)
    votes = (votes + corner.unsqueeze(2)).flatten(1, 2)
    rows = torch.repeat_interleave(table.starts.diff(), output_size=table.sources.numel())
    weighted = votes[:, table.sources] * table.weights.to(votes.dtype).unsqueeze(1)
    points = votes.new_zeros(votes.shape[0], table.starts.numel() - 1, 2).index_add(1, rows, weighted)
    return points / points.new_tensor([width, height])


def result_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 stays; everything else is computed and returned in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def checked_table(
    operation: str, table: MergeTensors, num_landmarks: int, num_neighbors: int, like: Tensor
) -> MergeTensors:
    """Check that a neighbor table's tensors fit N, K and the device of ``like``; returns them contiguous."""
    votes = num_landmarks * (1 + num_neighbors)
    for name, tensor, size, dtype in (
        ("starts", table.starts, num_landmarks + 1, torch.int32),
        ("sources", table.sources, votes, torch.int32),
        ("weights", table.weights, votes, torch.float32),
    ):
        if tensor.shape != (size,) or tensor.dtype != dtype:
            raise ValueError(
                f"{operation}: table: expected {name} of shape ({size},) and {dtype} for N={num_landmarks}, "
                f"K={num_neighbors}, got {tuple(tensor.shape)} and {tensor.dtype}"
            )
        if tensor.device != like.device:
            raise ValueError(f"{operation}: table: expected {name} on {like.device}, got {tensor.device}")
    return MergeTensors(*(t.contiguous() for t in table))


def check_grid(operation: str, argument: str, height: int, width: int) -> None:
    """Check that a grid has a cell and not too many of them."""
    if height < 1 or width < 1 or height * width > MAX_CELLS:
        raise ValueError(f"{operation}: {argument}: expected a grid of 1 to {MAX_CELLS} cells, got {height}x{width}")


def reject_nan(operation: str, score: Tensor) -> None:
    """Raise if a score map (B, N, H, W) holds a NaN; the fast backends do not look."""
    if score.isnan().any():
        image, landmark, y, x = score.isnan().nonzero()[0].tolist()
        raise ValueError(
            f"{operation}: expected scores without NaN, got one at image {image}, landmark {landmark}, cell ({x}, {y})"
        )
