"""Pseudo-labels: what a model predicts for faces without labels (section 3.3, step 2), with how far to trust it."""

import math
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipnet_fast._errors import require_int
from pipnet_fast._parquet import arrow, text
from pipnet_fast.data.samples import BadSample, FaceData
from pipnet_fast.evaluate.predict import Run, crop_rule, plain_crops, predicted
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.models.digest import model_digest
from pipnet_fast.selftrain.shards import ALONE, Shards, identity_of, read_identity
from pipnet_fast.train.distributed import World

# The version of the layout of the tables.
FORMAT = "pipnet_fast.labels/1"

# Faces in a file: seconds of a GPU, minutes of a CPU, and with 98 landmarks 5 MB.
SHARD_SIZE = 4096

# How often a file is begun anew after a worker's death.
RETRIES = 2


class LabelStatistics(NamedTuple):
    """What a table of pseudo-labels holds."""

    faces: int
    """All of them."""
    unreadable: int
    """Those whose images could not be read."""
    kept: int
    """Those that pass the filters."""
    mean_score: float
    """Mean over the landmarks of all readable faces, 0..1; NaN if there is none."""


def write_labels(
    model: LandmarkModel,
    data: FaceData,
    folder: str | os.PathLike[str],
    *,
    disagreement: bool = False,
    batch_size: int = 32,
    workers: int = 0,
    shard_size: int = SHARD_SIZE,
    skip_bad: bool = False,
    run: Run | None = None,
    world: World = ALONE,
) -> None:
    """Predict the landmarks of faces into Parquet files ``part-00000.parquet`` and so on; needs pyarrow.

    Files that are there already are kept, so that a call that was killed is made again and goes on. Memory does not
    grow with the number of faces. Faces are cropped as ``evaluate`` crops them. A worker's death costs its file's
    share of the work at most, ``RETRIES`` times a file.

    Columns: index, of the face in ``data``; image, its name; box (4) in px; landmarks (2 N) in px, x before y, NaN
    where the image cannot be read; scores (N) as the model gives them; disagreement; error, why the image cannot be
    read. Disagreement is the mean distance between the landmarks of the crop and those of its mirror image, brought
    back, as a share of the diagonal of the landmarks' tight box; null unless it is asked for.

    Args:
        model: a model of this package, in any mode; it comes back in it.
        data: the faces, with boxes; labels do not matter.
        folder: where the files go; model, data, ``disagreement`` and ``shard_size`` must be those of the files in it.
        disagreement: whether the mirror images are predicted, too, at twice the time.
        batch_size: crops in one forward pass.
        workers: processes that read ahead; 0 to read in this one.
        shard_size: faces in a file.
        skip_bad: go on where an image cannot be read, and say so in the table.
        run: what runs the model, such as ``compile(model)``; by default ``model.predict`` on the model's device.
        world: whose processes share the files out; all of them must call this with the same arguments.

    Raises:
        TypeError, ValueError: no model, another number of landmarks than the data's, no faces, a face without a box, or
            a folder with other labels.
        DataError: an image that cannot be read, unless ``skip_bad``; the files before it stay.
        FloatingPointError: landmarks that are not finite.
        OSError: the disk is full, or the folder cannot be written.
        RuntimeError: workers die again and again, or processes do not see the same folder.
        ImportError: pyarrow is missing.
    """
    if not isinstance(model, LandmarkModel):
        raise TypeError(f"write_labels: model: expected a landmark model of this package, got {type(model).__name__}")
    landmarks = data.layout.num_landmarks
    if model.config.num_landmarks != landmarks:
        raise ValueError(
            f"write_labels: model: expected one of {landmarks} landmarks for {data.name}, got one of "
            f"{model.config.num_landmarks}"
        )
    require_int("write_labels", "shard_size", shard_size, 1)
    _check_boxes(data)
    identity = {
        "format": FORMAT,
        **identity_of(data),
        "landmarks": landmarks,
        "crop": asdict(crop_rule(model, data)),
        "model": model_digest(model),
        "disagreement": disagreement,
        "shard_size": shard_size,
    }
    shards = Shards(Path(folder), identity, _schema(landmarks))
    reading: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "skip_bad": skip_bad}

    def make(rows: range) -> Any:
        faces = replace(data, samples=data.samples[rows.start : rows.stop])
        columns = _despite_deaths(lambda: _predict(model, faces, disagreement, run, reading))
        return _table(shards.schema, rows, faces, columns)

    shards.write(make, world=world, accept=lambda table: skip_bad or _unread(table) == 0)


def read_labels(
    data: FaceData,
    folder: str | os.PathLike[str],
    *,
    min_score: float | None = None,
    max_disagreement: float | None = None,
) -> FaceData:
    """The faces with what ``write_labels`` predicted for them as their landmarks, in float32.

    Args:
        data: the faces that were predicted.
        folder: where the files are.
        min_score: leave out faces whose mean score, each cut to 0..1, is less.
        max_disagreement: leave out faces whose disagreement, a share of the face's diagonal, is more.

    Returns:
        The faces that are left, perhaps none, in the order of ``data``. Those whose images could not be read are in
        ``bad``.

    Raises:
        ValueError: a filter out of its range; disagreement that was not computed; labels of other faces.
        DataError: a file is missing or damaged.
        ImportError: pyarrow is missing.
    """
    shards, keeps = _open("read_labels", folder, min_score, max_disagreement)
    shards.require("read_labels", data, landmarks=data.layout.num_landmarks)
    samples, bad = [], list(data.bad)
    for table in shards.tables():
        kept = keeps(table)
        points: Any = _array(table, "landmarks", len(kept))[kept].reshape(-1, data.layout.num_landmarks, 2)
        samples += [
            replace(data.samples[index], landmarks=landmarks)
            for index, landmarks in zip(table["index"].to_numpy()[kept].tolist(), points, strict=True)
        ]
        unread = table.filter(table["error"].is_valid())
        bad += map(BadSample, unread["image"].to_pylist(), unread["error"].to_pylist())
    return replace(data, samples=samples, bad=bad)


def label_statistics(
    folder: str | os.PathLike[str], *, min_score: float | None = None, max_disagreement: float | None = None
) -> LabelStatistics:
    """How many faces a table of pseudo-labels has, and how many pass the filters of ``read_labels``.

    Raises:
        ValueError, DataError, ImportError: as ``read_labels``.
    """
    shards, keeps = _open("label_statistics", folder, min_score, max_disagreement)
    faces, unreadable, kept, total = 0, 0, 0, 0.0
    for table in shards.tables():
        faces += len(table)
        unreadable += _unread(table)
        kept += int(keeps(table).sum())
        total += float(np.nansum(_face_scores(table), dtype=np.float64))
    return LabelStatistics(faces, unreadable, kept, total / (faces - unreadable) if faces > unreadable else np.nan)


def _check_boxes(data: FaceData) -> None:
    if not len(data):
        raise ValueError(f"write_labels: {data.name}: expected faces, got none")
    for sample in data.samples:
        if not (np.isfinite(sample.box).all() and (sample.box[2:] > sample.box[:2]).all()):
            raise ValueError(
                f"write_labels: {data.name}: {sample.image}: box: expected finite x0 < x1 and y0 < y1, got "
                f"{sample.box.tolist()}; pictures without boxes go through write_boxes and read_boxes first"
            )


class _Columns(NamedTuple):
    """What is predicted for the n faces of a shard: (n, N, 2), (n, N), (n,) or None, and n errors or None."""

    landmarks: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    disagreement: npt.NDArray[np.float32] | None
    errors: list[str | None]


def _predict(
    model: LandmarkModel, faces: FaceData, disagreement: bool, run: Run | None, reading: dict[str, Any]
) -> _Columns:
    """``reading``: of ``plain_crops``."""
    shape = len(faces), faces.layout.num_landmarks
    landmarks, scores = np.full((*shape, 2), np.nan, np.float32), np.full(shape, np.nan, np.float32)
    differing = np.full(len(faces), np.nan, np.float32)
    loader = plain_crops(model, faces, **reading)
    for batch in predicted(model, loader, mirror=disagreement, run=run):
        finite = np.isfinite(batch.points_px).all(axis=(1, 2)) & np.isfinite(batch.scores).all(axis=1)
        if not finite.all():
            image = faces.samples[int(batch.index[~finite][0])].image
            raise FloatingPointError(
                f"write_labels: model: expected finite landmarks and scores, got others for {image}; its weights may "
                "be those of a training that diverged"
            )
        landmarks[batch.index], scores[batch.index] = batch.points_px, batch.scores
        if batch.mirrored is not None:
            differing[batch.index] = _disagreement(batch.points_px, batch.mirrored[0])
    errors: list[str | None] = [None] * len(faces)
    for index, bad in zip(np.flatnonzero(np.isnan(scores[:, 0])).tolist(), loader.bad, strict=True):
        errors[index] = bad.reason
    return _Columns(landmarks, scores, differing if disagreement else None, errors)


def _disagreement(points: npt.NDArray[np.float64], mirrored: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(b,): see ``write_labels``; infinite for landmarks that are all in one place."""
    distances = np.linalg.norm(points - mirrored, axis=2).mean(axis=1)
    diagonals = np.linalg.norm(np.ptp(points, axis=1), axis=1)
    shares: npt.NDArray[np.float64] = np.full(len(points), np.inf)
    np.divide(distances, diagonals, out=shares, where=diagonals > 0)
    return shares


def _despite_deaths(predict: Callable[[], _Columns]) -> _Columns:
    """Begin anew where a worker dies, as one does that memory ran out for."""
    for _ in range(RETRIES):
        try:
            return predict()
        except RuntimeError as error:
            # The loader's message; or torch's, for the signal of a death may come while the model runs.
            if not any(words in str(error) for words in ("a worker process died", "DataLoader worker")):
                raise
    return predict()


def _schema(landmarks: int) -> Any:
    pa = arrow()

    def numbers(kind: Any, count: int) -> Any:
        return pa.list_(pa.field("element", kind, nullable=False), count)

    return pa.schema(
        [
            pa.field("index", pa.int64(), nullable=False),
            pa.field("image", pa.string(), nullable=False),
            pa.field("box", numbers(pa.float64(), 4), nullable=False),
            pa.field("landmarks", numbers(pa.float32(), 2 * landmarks), nullable=False),
            pa.field("scores", numbers(pa.float32(), landmarks), nullable=False),
            pa.field("disagreement", pa.float32()),
            pa.field("error", pa.string()),
        ]
    )


def _table(schema: Any, rows: range, faces: FaceData, columns: _Columns) -> Any:
    pa = arrow()

    def lists(name: str, values: npt.NDArray[np.floating]) -> Any:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=schema.field(name).type)

    return pa.table(
        [
            pa.array(rows, pa.int64()),
            pa.array([text(str(sample.image)) for sample in faces.samples]),
            lists("box", np.array([sample.box for sample in faces.samples], dtype=np.float64)),
            lists("landmarks", columns.landmarks),
            lists("scores", columns.scores),
            pa.nulls(len(rows), pa.float32()) if columns.disagreement is None else pa.array(columns.disagreement),
            pa.array([None if error is None else text(error) for error in columns.errors], pa.string()),
        ],
        schema=schema,
    )


def _open(
    operation: str, folder: str | os.PathLike[str], min_score: float | None, max_disagreement: float | None
) -> tuple[Shards, Callable[[Any], npt.NDArray[np.bool_]]]:
    """The table in a folder, and which rows of a part of it pass the filters."""
    for name, value, largest in (("min_score", min_score, 1.0), ("max_disagreement", max_disagreement, math.inf)):
        if value is not None and not (isinstance(value, (int, float)) and 0 <= value <= largest):
            raise ValueError(f"{operation}: {name}: expected a number from 0 to {largest:g}, got {value!r}")
    identity = read_identity(Path(folder), FORMAT, "landmarks")
    if max_disagreement is not None and not identity.get("disagreement"):
        raise ValueError(
            f"{operation}: max_disagreement: {folder} has labels without disagreement; write others, with "
            "disagreement=True, into another folder"
        )

    def keeps(table: Any) -> npt.NDArray[np.bool_]:
        kept: npt.NDArray[np.bool_] = table["error"].is_null().to_numpy()
        if min_score is not None:
            kept = kept & (_face_scores(table) >= min_score)
        if max_disagreement is not None:
            kept = kept & (table["disagreement"].to_numpy() <= max_disagreement)
        return kept

    return Shards(Path(folder), identity, _schema(identity["landmarks"])), keeps


def _face_scores(table: Any) -> npt.NDArray[np.float32]:
    """(n,) mean scores; NaN where the image could not be read."""
    scores: npt.NDArray[np.float32] = _array(table, "scores", len(table)).clip(0, 1).mean(axis=1)
    return scores


def _array(table: Any, name: str, rows: int) -> npt.NDArray[np.float32]:
    """(n, width) of a column of lists."""
    values: npt.NDArray[np.float32] = table[name].combine_chunks().flatten().to_numpy()
    return values.reshape(rows, -1)


def _unread(table: Any) -> int:
    return int(len(table) - table["error"].null_count)
