"""Predictions and results as files, so that any model can be evaluated, and any other tool can read what came out.

A table of predictions is a CSV with the columns ``index`` (which face of the data set, from 0), ``image`` (may be left
out; its file name is compared), ``x0``, ``y0`` ... and, where known, ``score0`` ...; or JSON, a list of
``{"index": 0, "image": "a.jpg", "points": [[x, y], ...], "scores": [...]}``. Coordinates are continuous px
of the image: the center of the first pixel is 0.5. A face without a row was not found.
"""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipnet_fast._parquet import text
from pipnet_fast.data.errors import DataError
from pipnet_fast.data.samples import FaceData, Norm
from pipnet_fast.evaluate.evaluation import Evaluation, hold_against

SUFFIXES = (".csv", ".json")


class _Row(NamedTuple):
    where: str
    face: int
    image: str | None
    points: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64] | None


def write_predictions(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """Write the predicted points as CSV or JSON, by the name's ending; faces that were not found are left out.

    Raises:
        ValueError: another ending.
        OSError: the file cannot be written.
    """
    suffix = _suffix(path)
    rows = [
        (
            int(evaluation.index[i]),
            evaluation.images[i],
            evaluation.points[i].round(4).tolist(),
            [None if np.isnan(score) else round(float(score), 5) for score in evaluation.scores[i]],
        )
        for i in np.flatnonzero(~evaluation.missed)
    ]
    # File names need not be UTF-8, but tables must be.
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        if suffix == ".json":
            records = [dict(zip(("index", "image", "points", "scores"), row, strict=True)) for row in rows]
            file.write(json.dumps(records, allow_nan=False) + "\n")
            return
        table = csv.writer(file)
        landmarks = range(evaluation.truth.shape[1])
        table.writerow(
            ["index", "image", *(f"{axis}{n}" for n in landmarks for axis in "xy"), *(f"score{n}" for n in landmarks)]
        )
        for index, image, points, scores in rows:
            table.writerow([index, image, *(v for point in points for v in point), *scores])


def read_predictions(
    path: str | os.PathLike[str], data: FaceData, *, norm: Norm | None = None, name: str | None = None
) -> Evaluation:
    """Hold a file of predictions against the faces of a data set.

    Args:
        path: a ``.csv`` or ``.json`` file; this module's text describes them.
        data: the faces that were predicted.
        norm: what errors are divided by; by default as the data set has it.
        name: whose predictions; by default the file's name.

    Raises:
        DataError: a file that is missing or not as described, with the line.
        ValueError: another ending.
    """
    read = _read_json if _suffix(path) == ".json" else _read_csv
    landmarks = data.layout.num_landmarks
    points = np.full((len(data), landmarks, 2), np.nan)
    scores = np.full((len(data), landmarks), np.nan)
    seen: set[int] = set()
    try:
        for row in read(Path(path), landmarks):
            if not 0 <= row.face < len(data) or row.face in seen:
                said = "a second time" if row.face in seen else f"of {len(data)} faces"
                raise DataError(f"{row.where}: index: expected each face once, from 0, got {row.face} {said}")
            image = str(data.samples[row.face].image)
            if row.image is not None and _file_name(row.image) != _file_name(image):
                raise DataError(f"{row.where}: image: expected {image}, got {row.image}")
            if row.points.shape != (landmarks, 2) or not np.isfinite(row.points).all():
                raise DataError(
                    f"{row.where}: expected {landmarks} points of finite numbers, got shape {row.points.shape}"
                )
            seen.add(row.face)
            points[row.face] = row.points
            if row.scores is not None:
                scores[row.face] = row.scores
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{os.fspath(path)}: {getattr(error, 'strerror', None) or error}") from None
    return hold_against(name or Path(path).stem, data, points, scores, norm=norm)


def write_summary(evaluations: Sequence[Evaluation], path: str | os.PathLike[str], threshold: float) -> None:
    """Write the measures of evaluations and their subsets as CSV or JSON, by the name's ending.

    JSON also holds the mean error of every landmark and what was left out.

    Raises:
        ValueError: another ending.
        OSError: the file cannot be written.
    """
    suffix = _suffix(path)
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        if suffix == ".json":
            records = [
                {
                    "parts": evaluation.summary(threshold),
                    "landmark_errors": [
                        None if np.isnan(e) else round(float(e), 5) for e in evaluation.landmark_errors
                    ],
                    "bad": [{"where": bad.where, "reason": bad.reason} for bad in evaluation.bad],
                }
                for evaluation in evaluations
            ]
            file.write(json.dumps(records, indent=1, allow_nan=False) + "\n")
            return
        rows = [row for evaluation in evaluations for row in evaluation.summary(threshold)]
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{os.fspath(path)}: expected a name that ends in one of {', '.join(SUFFIXES)}")
    return suffix


def _file_name(path: str) -> str:
    return PurePath(text(path).replace("\\", "/")).name


def _read_csv(path: Path, landmarks: int) -> Iterator[_Row]:
    # Spreadsheets mark UTF-8 at the beginning.
    with open(path, newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        places = [f"{axis}{n}" for n in range(landmarks) for axis in "xy"]
        columns = set(table.fieldnames or ())
        missing = [column for column in ("index", *places) if column not in columns]
        if missing or f"x{landmarks}" in columns:
            said = f"no column {missing[0]!r}" if missing else f"a column 'x{landmarks}'"
            raise DataError(f"{path}: expected predictions of {landmarks} landmarks, got {said}")
        scored = all(f"score{n}" in columns for n in range(landmarks))
        for row in table:
            where = f"{path}, line {table.line_num}"
            try:
                points = np.array([float(row[place]) for place in places]).reshape(landmarks, 2)
                scores = np.array([float(row[f"score{n}"] or "nan") for n in range(landmarks)]) if scored else None
                index = int(row["index"])
            except (TypeError, ValueError) as error:
                raise DataError(f"{where}: {error}") from None
            yield _Row(where, index, row.get("image") or None, points, scores)


def _read_json(path: Path, landmarks: int) -> Iterator[_Row]:
    with open(path, encoding="utf-8") as file:
        try:
            records: Any = json.load(file)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(records, list):
        raise DataError(f"{path}: expected a list of predictions, got {type(records).__name__}")
    for number, record in enumerate(records):
        where = f"{path}, entry {number}"
        try:
            points = np.array(record["points"], dtype=np.float64)
            given = record.get("scores")
            scores = None if given is None else np.array(given, dtype=np.float64)
            if scores is not None and scores.shape != (landmarks,):
                raise ValueError(f"scores: expected {landmarks}, got shape {scores.shape}")
            index, image = int(record["index"]), record.get("image")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: {type(error).__name__}: {error}") from None
        yield _Row(where, index, None if image is None else str(image), points, scores)
