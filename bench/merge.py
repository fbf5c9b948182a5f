"""Other weights for the merge of votes than the two there are: fitted ones, and ones that follow the scores.

Fitted on augmented crops of one split, judged on another one as it is and under shifts: mirrored, turned, boxes that
are a little off, blurred, of low resolution.
"""

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

import pipnet_fast as pf
from bench.faces import labelled_faces
from bench.networks import load_pipnet
from bench.record import Record, device_name, measured
from pipnet_fast.data import FaceData
from pipnet_fast.data.augment import Augmentation
from pipnet_fast.data.loader import CropLoader
from pipnet_fast.evaluate.metrics import norm_distances
from pipnet_fast.ops._merge import votes_at, winning_cells
from pipnet_fast.pipeline.images import normalize
from pipnet_fast.weights import default_model

Floats = npt.NDArray[np.float64]

NO_CHANGE = Augmentation(translation_p=0, occlusion_p=0, flip_p=0, rotation_p=0, blur_p=0, gray_p=0).__dict__
SHIFTS = {
    "as it is": NO_CHANGE,
    "mirrored": {**NO_CHANGE, "flip_p": 1.0},
    "turned": {**NO_CHANGE, "rotation_p": 1.0},
    "boxes off": {**NO_CHANGE, "translation_p": 1.0, "translation_frac": 0.06, "scale_p": 1.0, "scale_max": 1.1},
    "blurred": {**NO_CHANGE, "blur_p": 1.0},
    "low resolution": {**NO_CHANGE, "resolution_p": 1.0},
}
RIDGES = (0.01, 0.1, 0.3, 1.0, 3.0)
POWERS = (0.5, 1.0, 2.0)
BATCH = 64


class Votes(NamedTuple):
    """Raw votes of n faces in image px, relative to the labels of the landmarks that they are for.

    Attributes:
        errors: (n, V, 2) vote minus label in percent of the inter-ocular distance, in the order of ``table.sources``.
        scores: (n, V) of the landmark that votes.
    """

    errors: Floats
    scores: Floats


def collect(model: pf.PIPNet, data: FaceData, augmentation: Augmentation) -> Votes:
    """Votes of a model of N landmarks for the faces of a data set that are all labelled."""
    table = model.table
    # Whose votes, and for whom.
    voters = table.sources.numpy() // (1 + table.num_neighbors)
    targets = np.repeat(np.arange(table.num_landmarks), table.starts.diff().numpy())
    loader = CropLoader(data, model.crop, model.config.input_size, BATCH, augmentation=augmentation, shuffle=False)
    errors, scores = [], []
    for batch in loader:
        votes, score = raw_votes(model, batch.crops)
        affines = loader.affines(batch.index)
        points = model.crop.to_image(votes[:, table.sources.numpy()], affines, model.config.input_size)
        truth = np.array([data.samples[i].landmarks for i in batch.index.tolist()])
        norm = norm_distances(truth, "inter_ocular", outer_eyes=data.layout.outer_eyes)
        # In a mirrored crop landmark i is the image's flip[i].
        mirrored = np.linalg.det(affines[:, :, :2]) < 0
        truth = np.where(mirrored[:, None, None], truth[:, data.layout.flip], truth)
        errors.append(100 * (points - truth[:, targets]) / norm[:, None, None])
        scores.append(score[:, voters])
    return Votes(np.concatenate(errors), np.concatenate(scores))


@torch.no_grad()
def raw_votes(model: pf.PIPNet, crops: torch.Tensor) -> tuple[Floats, Floats]:
    """Votes (B, N * (1 + K), 2) of uint8 crops (B, S, S, 3) in fractions of the crop, and scores (B, N)."""
    maps = model(normalize(crops))
    height, width = maps.score.shape[2:]
    scores, cell = winning_cells(maps.score)
    corner = torch.stack((cell % width, cell // width), dim=2).unsqueeze(2)
    votes = (votes_at(maps, cell) + corner) / torch.tensor([width, height])
    return votes.flatten(1, 2).double().numpy(), scores.double().numpy()


def fit(starts: npt.NDArray[np.int32], errors: Floats, ridge: float) -> Floats:
    """Weights (V,) that sum to 1 over each landmark's votes and make the squared error of the merged points least.

    Args:
        starts: (N + 1,) where each landmark's votes begin.
        errors: (n, V, 2) of the votes. As weights sum to 1, that of the merged point is their weighted sum.
        ridge: how much a deviation from equal weights costs, relative to the mean squared error of a vote.
    """
    weights = np.empty(errors.shape[1])
    for start, end in pairwise(starts.tolist()):
        count = end - start
        rows = errors[:, start:end].transpose(0, 2, 1).reshape(-1, count)
        squares = rows.T @ rows / len(rows)
        penalty = ridge * np.trace(squares) / count
        system = np.ones((count + 1, count + 1))
        system[:count, :count] = squares + penalty * np.eye(count)
        system[count, count] = 0
        right = np.full(count + 1, penalty / count)
        right[count] = 1
        weights[start:end] = np.linalg.solve(system, right)[:count]
    return weights


def merged(starts: npt.NDArray[np.int32], votes: Votes, weights: Floats, power: float = 0.0) -> Floats:
    """Errors (n, N, 2) of the merged points; ``power`` of the voters' scores weighs the votes further."""
    weighing = weights * votes.scores.clip(1e-3) ** power
    sums = np.add.reduceat(weighing, starts[:-1], axis=1)
    points: Floats = np.add.reduceat(votes.errors * weighing[:, :, None], starts[:-1], axis=1) / sums[:, :, None]
    return points


def candidates(model: pf.PIPNet, training: Votes) -> Iterator[tuple[str, Floats, float]]:
    """Names, weights and powers of the scores."""
    starts = model.table.starts.numpy()
    equal = pf.neighbor_table(model.mean_shape, model.config.num_neighbors, "mean").weights.double().numpy()
    official = pf.neighbor_table(model.mean_shape, model.config.num_neighbors, "official").weights.double().numpy()
    own = np.zeros(len(equal))
    own[starts[:-1]] = 1
    yield from (("own vote alone", own, 0.0), ("mean", equal, 0.0), ("official", official, 0.0))
    for ridge in RIDGES:
        yield f"fitted, ridge {ridge:g}", fit(starts, training.errors, ridge), 0.0
    for power in POWERS:
        yield f"mean, times score^{power:g}", equal, power


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv, val.csv and images/")
    parser.add_argument("--model", help="safetensors model (default: the one in the box)")


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Mean error in percent of each merge under each shift, and how far the mean merge is off to one side."""
    model = load_pipnet(arguments.model or default_model())
    starts = model.table.starts.numpy()
    training = collect(model, labelled_faces(arguments.data / "train.csv"), Augmentation())
    merges = list(candidates(model, training))
    data = labelled_faces(arguments.data / "val.csv")
    common = {"case": "merge", "device": device_name("cpu"), "threads": torch.get_num_threads(), "dtype": "float32"}
    records = []
    for shift, changes in SHIFTS.items():
        votes = collect(model, data, Augmentation(**changes))
        shared = {**common, "shape": f"{data.name}, {len(data)} faces, {shift}"}
        for name, weights, power in merges:
            errors = merged(starts, votes, weights, power)
            of_merge = {**shared, "subject": f"{arguments.model or 'model in the box'}, merge {name}"}
            distance = float(np.linalg.norm(errors, axis=2).mean())
            records.append(measured(of_merge, "NME inter-ocular, mean", "%", [distance]))
            if name == "mean":
                for axis, off in zip("xy", errors.mean(axis=(0, 1)).tolist(), strict=True):
                    records.append(measured(of_merge, f"mean error along {axis}", "%", [off]))
    return records
