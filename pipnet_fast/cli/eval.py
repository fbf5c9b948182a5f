"""``pipnet-fast eval``: how good models and files of predictions are on labelled faces."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from torch import Tensor
from tqdm import tqdm

from pipnet_fast.cli._arguments import folder_argument
from pipnet_fast.cli._faces import add_face_arguments, open_boxed_faces, report_left_out, warn_of_crops
from pipnet_fast.cli._models import BOX, load_model, model_names
from pipnet_fast.cli._tables import aligned
from pipnet_fast.data import FaceData
from pipnet_fast.data.samples import Norm
from pipnet_fast.engines import compile
from pipnet_fast.evaluate import (
    THRESHOLD,
    Evaluation,
    detected_boxes,
    evaluate,
    figures,
    read_predictions,
    write_predictions,
    write_summary,
)
from pipnet_fast.evaluate.files import SUFFIXES as PREDICTIONS
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.ops import Landmarks
from pipnet_fast.pipeline.detectors import create_detector


class Subject(NamedTuple):
    """What is evaluated under which name: a model, or a file of predictions."""

    name: str
    source: LandmarkModel | Path


def add_command(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "eval",
        help="measure models on labelled faces",
        description="Evaluate models on labelled faces: normalized mean error, failure rate, area under the CED and "
        "Point-Var, over all faces and each subset. With --out, also writes summary.csv and summary.json, "
        "NAME.predictions.csv, ced.png, landmarks.png (mean error of every landmark) and NAME.worst.png (labels green, "
        "predictions orange) of each.",
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help=f'.safetensors model, official .pth checkpoint, predictions (.csv, .json), or "{BOX}": the one in the box',
    )
    add_face_arguments(parser)
    parser.add_argument(
        "--norm", choices=get_args(Norm), help="what errors are divided by (default: as the data set's)"
    )
    parser.add_argument(
        "--threshold", type=float, default=THRESHOLD, metavar="PERCENT", help="of failure rate and AUC (default: 10)"
    )
    parser.add_argument("--detector", metavar="NAME", help="crop by what a detector finds: haar, yunet:PATH or a file")
    parser.add_argument("--flip-average", action="store_true", help="also average with the mirrored crop, apart")
    parser.add_argument("--sweep", metavar="KEY", help="with --out: NME against num_neighbors, stride, ... (sweep.png)")
    parser.add_argument("--engine", default="torch", help="auto or one of those that `pipnet-fast info` lists")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate every model, print the table and write the files; 1 if some faces were left out."""
    if not arguments.threshold > 0:
        raise ValueError(f"--threshold: expected percent above 0, got {arguments.threshold:g}")
    out = None if arguments.out is None else folder_argument("--out", arguments.out)
    # What can be wrong is looked at before the first long computation.
    if out:
        figures.require_matplotlib()
    subjects = list(_subjects(arguments))
    settings = [_setting(subject, arguments.sweep) for subject in subjects] if arguments.sweep else None
    data, boxes = open_boxed_faces(arguments)
    detector = create_detector(arguments.detector)
    if detector is not None:
        boxes = detected_boxes(data, detector, skip_bad=arguments.skip_bad)
    if boxes is None:
        warn_of_crops(data, ((s.name, s.source) for s in subjects if isinstance(s.source, LandmarkModel)))
    plain, averaged = [], []
    for subject in subjects:
        if isinstance(subject.source, Path):
            plain.append(read_predictions(subject.source, data, norm=arguments.norm, name=subject.name))
            continue
        plain.append(_evaluate(subject, data, boxes, arguments, flip_average=False))
        if arguments.flip_average:
            averaged.append(_evaluate(subject, data, boxes, arguments, flip_average=True))
    evaluations = plain + averaged
    print(_table(evaluations, arguments.threshold))
    if out:
        out.mkdir(parents=True, exist_ok=True)
        _write(evaluations, data, out, arguments.threshold)
        if settings:
            figures.draw_sweep(plain, settings, arguments.sweep, out / "sweep.png")
        print(f"written to {out}")
    return report_left_out(entry for evaluation in evaluations for entry in evaluation.bad)


def _subjects(arguments: argparse.Namespace) -> Iterator[Subject]:
    """The models, loaded, and the files of predictions."""
    for model, name in zip(arguments.models, model_names(arguments.models), strict=True):
        if Path(model).suffix.lower() in PREDICTIONS:
            yield Subject(name, Path(model))
        else:
            yield Subject(name, load_model(model, arguments.mean_shape, arguments.device, also=PREDICTIONS))


def _setting(subject: Subject, key: str) -> float:
    """A number of a model's configuration."""
    value = None if isinstance(subject.source, Path) else subject.source.config.to_dict().get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"--sweep: expected a number of every model's configuration, got {key!r} for {subject.name}")
    return float(value)


def _evaluate(
    subject: Subject, data: FaceData, boxes: Any, arguments: argparse.Namespace, *, flip_average: bool
) -> Evaluation:
    assert isinstance(subject.source, LandmarkModel)
    runtime = compile(subject.source, arguments.engine, arguments.batch_size)
    name = f"{subject.name}, flip average" if flip_average else subject.name
    # Without a terminal there is no bar: it would stand among the messages of a log.
    with tqdm(total=len(data) * (1 + flip_average), unit="crop", desc=name, leave=False, disable=None) as bar:

        def counted(crops: Tensor) -> Landmarks:
            found = runtime(crops)
            bar.update(len(crops))
            return found

        return evaluate(
            subject.source,
            data,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            norm=arguments.norm,
            flip_average=flip_average,
            run=counted,
            boxes=boxes,
            skip_bad=arguments.skip_bad,
            name=name,
        )


def _table(evaluations: Sequence[Evaluation], threshold: float) -> str:
    """The measures in columns."""
    rows = [
        ["model", "subset", "faces", "missed", "NME %", f"FR@{threshold:g} %", f"AUC@{threshold:g} %", "Point-Var %²"]
    ]
    for evaluation in evaluations:
        for row in evaluation.summary(threshold):
            numbers = [row[key] for key in ("nme", "failure_rate", "auc", "point_var")]
            texts = ["-" if number is None else f"{number:.2f}" for number in numbers]
            rows.append([row["model"], row["subset"], str(row["faces"]), str(row["missed"]), *texts])
    first = evaluations[0]
    return "\n".join([f"{first.data}, errors relative to {first.norm}", *aligned(rows, names=2)])


def _write(evaluations: Sequence[Evaluation], data: FaceData, out: Path, threshold: float) -> None:
    for suffix in ("csv", "json"):
        write_summary(evaluations, out / f"summary.{suffix}", threshold)
    for evaluation in evaluations:
        name = evaluation.name.replace(", ", "_").replace(" ", "_")
        write_predictions(evaluation, out / f"{name}.predictions.csv")
        figures.draw_worst_faces(evaluation, data, out / f"{name}.worst.png")
    figures.draw_ced(evaluations, out / "ced.png", threshold)
    figures.draw_landmark_errors(evaluations, data.layout, out / "landmarks.png")
