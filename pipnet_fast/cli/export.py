"""``pipnet-fast export``: a model as one file that runs without this package."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar, get_args

import numpy as np

from pipnet_fast.cli._faces import add_data_arguments, add_mean_shape, open_faces
from pipnet_fast.cli._models import BOX, load_model
from pipnet_fast.cli.demo import astronaut
from pipnet_fast.cli.detect import expand
from pipnet_fast.crop import Image, warp
from pipnet_fast.data import FaceData
from pipnet_fast.evaluate.predict import plain_crops
from pipnet_fast.export import Checked, Int8, export_aoti, export_onnx, export_program
from pipnet_fast.export._network import Input
from pipnet_fast.export._verify import Arrays, made_up_crops
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.pipeline.detectors import Detector, create_detector
from pipnet_fast.pipeline.images import ImageError, read_rgb

Item = TypeVar("Item")

FORMATS = {"onnx": export_onnx, "torch-export": export_program, "aoti": export_aoti}
# Faces that are compared on, and calibrated on; a larger folder gives every so many-th of its pictures.
COMPARED, CALIBRATED = 16, 256


def add_command(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "export",
        help="write a model as one file for other runtimes",
        description="Write a model as one file: crops in, landmarks in fractions of the crop and scores out, any "
        "number of crops at once. As ONNX (for ONNX Runtime, OpenVINO, TensorRT ...), as an exported program of torch, "
        "or compiled ahead of time by TorchInductor. The file is run and held against the model before it is kept.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help=f'.safetensors model, official .pth checkpoint, or "{BOX}": the one in the box',
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="ends in .onnx, or .pt2 for the other formats")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="(default: onnx)")
    parser.add_argument(
        "--input",
        choices=get_args(Input),
        default="float32",
        help="float32: normalized crops (B, 3, S, S); uint8: RGB crops (B, S, S, 3), normalized in the file "
        "(default: float32)",
    )
    parser.add_argument("--layout", metavar="NAME", help="what the landmarks are, for the file's metadata: 300w68 ...")
    add_mean_shape(parser)
    parser.add_argument(
        "--verify-on",
        metavar="FOLDER",
        help="compare on faces of these pictures (default: on made-up crops, and on scikit-image's photo where that is "
        "installed)",
    )
    parser.add_argument("--detector", default="auto", metavar="NAME", help="of faces: auto, haar, yunet:PATH or a file")
    parser.add_argument("--device", default="cpu", help="that aoti compiles for: cpu, cuda ... (default: cpu)")
    small = parser.add_argument_group("int8 (onnx)", "Measured on the labelled faces of --data, if there are any.")
    small.add_argument("--int8", action="store_true", help="quantize the backbone")
    small.add_argument("--calibration", metavar="FOLDER", help="pictures of faces to take its ranges from")
    add_data_arguments(small, required=False)
    small.add_argument(
        "--calibration-split", metavar="NAME", help="in place of --calibration: another part of --data, as train"
    )
    small.add_argument(
        "--max-nme-rise",
        type=float,
        default=Int8.max_nme_rise,
        metavar="PERCENT",
        help=f"with --data: refuse where int8 raises the NME by more (default: {Int8.max_nme_rise:g})",
    )
    small.add_argument(
        "--max-shift",
        type=float,
        default=Int8.max_shift,
        metavar="PERCENT",
        help="without: refuse where int8 moves landmarks by more of the crop in the mean "
        f"(default: {Int8.max_shift:g})",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export, and tell how the file was checked."""
    _check(arguments)
    detector = create_detector(arguments.detector)
    assert detector is not None
    model = load_model(arguments.model, arguments.mean_shape, arguments.device)
    crops = _compared(arguments.verify_on, model, detector)
    options = {"int8": _int8(arguments, model, detector)} if arguments.int8 else {}
    export: Any = FORMATS[arguments.format]
    checked = export(model, arguments.out, input=arguments.input, layout=arguments.layout, crops=crops, **options)
    print(_text(arguments.out, checked))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise a ValueError where flags do not go together."""
    if not arguments.int8:
        for name in ("calibration", "calibration_split", "data"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')}: expected --int8 beside it")
    elif arguments.format != "onnx":
        raise ValueError(f"--int8: expected --format onnx, got {arguments.format}")
    elif (arguments.calibration is None) == (arguments.calibration_split is None):
        raise ValueError("--int8: expected --calibration FOLDER or --calibration-split NAME beside it")
    elif arguments.calibration_split is not None and arguments.data is None:
        raise ValueError("--calibration-split: expected --data NAME ROOT beside it")
    elif arguments.calibration_split == arguments.split:
        raise ValueError(f"--calibration-split: expected another part than --split, got {arguments.split!r} for both")


def _compared(folder: str | None, model: LandmarkModel, detector: Detector) -> Arrays | None:
    """Crops to compare on, None for made-up ones."""
    if folder is not None:
        return _face_crops("--verify-on", folder, model, detector, COMPARED)
    try:
        photo = astronaut()
    except RuntimeError:
        return None
    size = model.config.input_size
    return np.concatenate([made_up_crops(size), _face_crops("--verify-on", str(photo), model, detector, 1)])


def _int8(arguments: argparse.Namespace, model: LandmarkModel, detector: Detector) -> Int8:
    data = None if arguments.data is None else open_faces(arguments)
    if arguments.calibration is not None:
        crops = _face_crops("--calibration", arguments.calibration, model, detector, CALIBRATED)
    else:
        arguments.split = arguments.calibration_split
        crops = _data_crops(open_faces(arguments), model)
    return Int8(crops, data, arguments.max_nme_rise, arguments.max_shift)


def _data_crops(data: FaceData, model: LandmarkModel) -> Arrays:
    """Crops of labelled faces, at most as many as are calibrated on, spread over all of them."""
    chosen = replace(data, samples=_spread(data.samples, CALIBRATED))
    return np.concatenate([batch.crops.numpy() for batch in plain_crops(model, chosen, batch_size=32)])


def _face_crops(flag: str, source: str, model: LandmarkModel, detector: Detector, most: int) -> Arrays:
    """Crops (n, S, S, 3) of faces in a folder's pictures, or in one picture; of ``most`` pictures at the most.

    Raises:
        ValueError: there are none.
    """
    photos, wrong = expand([source])
    crops: list[Image] = []
    for photo in _spread(photos, most):
        try:
            image = read_rgb(photo)
        except ImageError as error:
            wrong.append(str(error))
            continue
        boxes = np.asarray(detector(image), dtype=np.float64)
        size = model.config.input_size
        crops += [warp(image, affine, size) for affine in model.crop.affine(model.crop.apply(boxes), size)]
    for message in wrong:
        print(f"pipnet-fast export: {flag}: left out: {message}", file=sys.stderr)
    if not crops:
        raise ValueError(f"{flag}: expected pictures of faces, found no face in {source}")
    return np.stack(crops)


def _spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of them, the first and others at equal distances."""
    return [items[i * len(items) // most] for i in range(most)] if len(items) > most else list(items)


def _text(out: str, checked: Checked) -> str:
    """What was checked, a line each."""
    lines = [
        f"{checked.by} gives the model's landmarks on {checked.crops} crop(s), one by one and together: the largest "
        f"difference is {checked.deviation_frac:.1e} of the crop"
    ]
    cost = checked.int8
    if cost is not None and cost.measure == "NME":
        lines.append(f"int8: NME {cost.int8:.3f} % on {cost.faces} faces, float32 {cost.float32:.3f} %")
    elif cost is not None:
        lines.append(f"int8: landmarks move by {cost.int8:.3f} % of the crop, the mean over {cost.faces} crops")
    return "\n".join([*lines, f"written to {out}"])
