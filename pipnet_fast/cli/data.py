"""``pipnet-fast data``: look at a data set before training on it."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipnet_fast.cli._arguments import named_values
from pipnet_fast.crop import CropRule
from pipnet_fast.data import FaceData, open_data
from pipnet_fast.data.augment import Augmentation
from pipnet_fast.data.loader import CropLoader
from pipnet_fast.data.mean_face import disagreement, draw_mean_faces, mean_face, warn_of_disagreement
from pipnet_fast.data.readers import READERS
from pipnet_fast.data.samples import BadSample
from pipnet_fast.data.sheet import draw_sheet
from pipnet_fast.evaluate.fit_detector import fit_detector
from pipnet_fast.pipeline.detectors import create_detector
from pipnet_fast.pipeline.draw import write_png


def add_command(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the subcommands ``show``, ``mean-face``, ``fit-detector`` and ``info``."""
    parser = commands.add_parser("data", help="look at a data set", description="Look at a data set.")
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")

    show = tasks.add_parser(
        "show",
        help="draw faces as training sees them, with their labels",
        description="Draw faces as training sees them: cut, augmented, with their labels. Landmarks of the image's "
        "left side are blue, of its right side orange, those in the middle green, and some are numbered: in mirrored "
        "crops, too, blue has to be on the left.",
    )
    _add_data(show)
    show.add_argument("--out", required=True, metavar="FILE", help="the picture, a PNG")
    show.add_argument("--count", type=int, default=25, help="faces (default: %(default)s)")
    show.add_argument("--columns", type=int, help="faces in a row (default: as many as rows)")
    show.add_argument("--seed", type=int, default=0, help="of choice and augmentation (default: %(default)s)")
    show.add_argument("--input-size", type=int, default=256, metavar="PX", help="(default: %(default)s)")
    show.add_argument("--crop-scale", type=float, metavar="X", help="of the boxes (default: the data set's)")
    change = show.add_mutually_exclusive_group()
    change.add_argument("--no-augment", action="store_true", help="plain crops, as in evaluation")
    change.add_argument(
        "--augment",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="change the augmentation from the paper's, such as rotation_p=1 scale_p=0.5",
    )
    show.set_defaults(run=run_show)

    mean = tasks.add_parser(
        "mean-face",
        help="draw the mean faces of data sets side by side, to see whether their crops are alike",
        description="Average the crops of data sets, each cut from its own boxes by its own rule, and draw the means "
        "of their labels in (Figure 10). A model is only good on crops in the style that it was trained with: how far "
        "the sets' mean shapes are shifted and scaled against the first one's is printed, with a warning where it is "
        "too far.",
    )
    mean.add_argument(
        "--data",
        nargs="+",
        action="append",
        required=True,
        metavar="WORD",
        help="NAME ROOT [SPLIT] [OPTION=VALUE ...], once for every set: as for data show, split by default train",
    )
    mean.add_argument("--out", required=True, metavar="FILE", help="the picture, a PNG")
    mean.add_argument("--limit", type=int, default=1000, metavar="N", help="pictures of each (default: %(default)s)")
    mean.add_argument("--input-size", type=int, default=256, metavar="PX", help="(default: %(default)s)")
    mean.add_argument("--detector", metavar="NAME", help="for pictures without boxes: haar or yunet:PATH")
    mean.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read images (default: 0)")
    mean.add_argument("--skip-bad", action="store_true", help="pass over faces that are broken, and list them")
    mean.set_defaults(run=run_mean_face)

    fit = tasks.add_parser(
        "fit-detector",
        help="fit a detector's boxes to one's own landmarks",
        description="Measure on labelled faces how a detector's boxes lie to the tight boxes of the landmarks, and "
        "write it into a file that other commands take as --detector. Landmarks that do not reach from the brows to "
        "the chin need it: without, the model sees larger crops than in training.",
    )
    _add_data(fit)
    fit.add_argument("--detector", default="haar", metavar="NAME", help="haar or yunet:PATH (default: haar)")
    fit.add_argument("--out", required=True, metavar="FILE", help="ends in .json")
    fit.set_defaults(run=run_fit_detector)

    info = tasks.add_parser(
        "info", help="count faces, labels and what is broken", description="Count faces, labels and what is broken."
    )
    _add_data(info)
    info.set_defaults(run=run_info)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", choices=READERS, help=f"one of {', '.join(READERS)}")
    parser.add_argument("root", metavar="ROOT", help="the folder that it was unpacked to")
    parser.add_argument("--split", default="train", help="(default: %(default)s)")
    parser.add_argument("--boxes", metavar="KIND", help="which boxes, where the data set has several")
    parser.add_argument(
        "--option", nargs="+", default=[], metavar="NAME=VALUE", help="other options of the data set's reader"
    )
    parser.add_argument("--skip-bad", action="store_true", help="pass over faces that are broken, and list them")


def run_show(arguments: argparse.Namespace) -> int:
    """Draw the sheet; 1 if some faces were broken."""
    data = _open(arguments)
    crop: CropRule = data.crop
    if arguments.crop_scale is not None:
        crop = replace(crop, scale=arguments.crop_scale)
    augmentation = None if arguments.no_augment else Augmentation(**named_values("--augment", arguments.augment))
    loader = CropLoader(
        data,
        crop,
        arguments.input_size,
        arguments.count,
        augmentation=augmentation,
        shuffle=True,
        seed=arguments.seed,
        skip_bad=arguments.skip_bad,
    )
    batch = next(iter(loader))
    write_png(arguments.out, draw_sheet(batch, data, crop, arguments.columns))
    print(f"{len(batch.index)} of {len(data)} face(s) of {data.name}, written to {arguments.out}")
    return _list_bad([*data.bad, *loader.bad])


def run_mean_face(arguments: argparse.Namespace) -> int:
    """Draw the mean faces and compare them; 1 if some faces were broken."""
    detector = create_detector(arguments.detector)
    sets = [_open_words(words, arguments.skip_bad) for words in arguments.data]
    faces = [
        mean_face(
            data,
            size=arguments.input_size,
            limit=arguments.limit,
            detector=detector,
            workers=arguments.workers,
            skip_bad=arguments.skip_bad,
        )
        for data in sets
    ]
    write_png(arguments.out, draw_mean_faces(faces))
    for data, face in zip(sets, faces, strict=True):
        print(f"{face.name}: {face.count} face(s) from {len(data)}{_against(sets[0], data)}")
    print(f"written to {arguments.out}")
    for message in warn_of_disagreement(sets):
        print(f"warning: {message}", file=sys.stderr)
    return _list_bad([one for data, face in zip(sets, faces, strict=True) for one in (*data.bad, *face.bad)])


def run_fit_detector(arguments: argparse.Namespace) -> int:
    """Fit, write and tell how good it is; 1 if some faces were broken."""
    data = _open(arguments)
    fit = fit_detector(arguments.detector, data, skip_bad=arguments.skip_bad)
    fit.detector.save(arguments.out)
    print(
        f"{fit.found} of {fit.faces} face(s) found; median overlap with the landmarks' boxes {fit.after:.2f}, "
        f"{fit.before:.2f} without; written to {arguments.out}"
    )
    return _list_bad([*data.bad, *fit.bad])


def run_info(arguments: argparse.Namespace) -> int:
    """Print the counts; 1 if some faces were broken."""
    data = _open(arguments)
    print(f"{data.name}: {len(data)} face(s), layout {data.layout.name}, {data.layout.num_landmarks} landmarks")
    labels = [sample.landmarks for sample in data.samples if sample.landmarks is not None]
    missing = sum(bool(np.isnan(points).any()) for points in labels)
    print(f"labelled: {len(labels)}, with missing landmarks: {missing}, unlabelled: {len(data) - len(labels)}")
    print(f"images: {len({str(sample.image) for sample in data.samples})}")
    for name in data.subset_names():
        print(f"subset {name}: {len(data.subset(name))}")
    boxes = np.array([sample.box for sample in data.samples]).reshape(-1, 4)
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    if len(boxes) < len(data):
        print(f"without a box, for a detector to find: {len(data) - len(boxes)}")
    if len(boxes):
        width, height = (boxes[:, 2:] - boxes[:, :2]).mean(axis=0)
        kind = "tight" if data.tight else "given"
        print(f"mean box: {width:.1f} x {height:.1f} px, {kind}; crop: {data.crop}; norm: {data.norm}")
    return _list_bad(data.bad)


def _open(arguments: argparse.Namespace) -> FaceData:
    options = named_values("--option", arguments.option)
    if arguments.boxes is not None:
        options["boxes"] = arguments.boxes
    return open_data(arguments.name, arguments.root, arguments.split, skip_bad=arguments.skip_bad, **options)


def _open_words(words: Sequence[str], skip_bad: bool) -> FaceData:
    """The data set of NAME ROOT [SPLIT] [OPTION=VALUE ...]."""
    name, root, *rest = words if len(words) > 1 else (words[0], "")
    options = [word for word in rest if "=" in word]
    splits = [word for word in rest if "=" not in word]
    if not root or len(splits) > 1:
        raise ValueError(f"--data: expected NAME ROOT [SPLIT] [OPTION=VALUE ...], got {' '.join(words)}")
    split = splits[0] if splits else "train"
    return open_data(name, root, split, skip_bad=skip_bad, **named_values("--data", options, "OPTION=VALUE"))


def _against(first: FaceData, data: FaceData) -> str:
    step = None if data is first else disagreement(first, data)
    if step is None:
        return ""
    return f"; against {first.name}: dx {step.dx:+.3f}, dy {step.dy:+.3f} of the crop, scale {step.scale:.3f}"


def _list_bad(bad: Sequence[BadSample]) -> int:
    if bad:
        print(f"{len(bad)} bad face(s):", file=sys.stderr)
        for one in bad:
            print(f"  {one.reason}", file=sys.stderr)
    return 1 if bad else 0
