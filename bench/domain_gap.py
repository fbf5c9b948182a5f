"""A domain gap of one's own: ``python -m bench.domain_gap --data DIR --out DIR`` makes two sets of ytf68's faces.

source/  train: faces of 100 persons of the training split with their labels; val: the validation split.
target/  train: faces of all other persons of the training split, and the frames without labels, all spoiled, no labels;
         val: the validation split, spoiled, with labels.

Nobody is in two of the sets but for frames without labels, which show training persons. Each target picture is turned
about its face by up to ``TURN_DEG``, blurred, brought down to ``FACE_PX`` across the face and back up, and flattened in
contrast; each by numbers of its own, which follow from the seed. Boxes: of labelled faces the tight one of the turned
labels; of the others a detector's, found before the picture was spoiled.
"""

import argparse
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipnet_fast.crop import tight_boxes, transform
from pipnet_fast.data import FaceData, Sample, open_data
from pipnet_fast.pipeline.detectors import HaarDetector

PERSONS = 100
TURN_DEG = 45.0
FACE_PX = (20.0, 36.0)
BLUR = 0.015  # deviation, as a share of the face
CONTRAST = (0.3, 0.7)
BRIGHTNESS = 30.0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spoiled:
    """A picture (h, w, 3) and, if there are any, its landmarks (N, 2) in px."""

    picture: npt.NDArray[np.uint8]
    landmarks: Floats | None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.domain_gap")
    parser.add_argument("--data", required=True, help="folder of ytf68")
    parser.add_argument("--out", required=True, type=Path, help="folder for both sets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--offset-px", type=float, nargs=2, default=(-1.0, 0.0), help="added to all labels")
    parser.add_argument("--every", type=int, default=1, help="keep every so many-th of the faces without labels")
    arguments = parser.parse_args()
    options: dict[str, Any] = {"layout": "300w68", "offset_px": list(arguments.offset_px)}
    train, val = (open_data("table", arguments.data, split, **options) for split in ("train", "val"))
    random = np.random.default_rng(arguments.seed)
    persons = sorted({person_of(sample) for sample in train.samples})
    chosen = set(random.permutation(persons)[:PERSONS].tolist())
    source = [sample for sample in train.samples if person_of(sample) in chosen]
    rest = [sample for sample in train.samples if person_of(sample) not in chosen]
    detector = HaarDetector()
    unlabelled = list(found(open_data("table", arguments.data, "unlabelled", layout="300w68"), detector))
    for name, samples in (("train", source), ("val", val.samples)):
        write(arguments.out / "source", name, samples, labels=True, random=None)
    hidden = [*rest, *unlabelled][:: arguments.every]
    write(arguments.out / "target", "train", hidden, labels=False, random=random)
    write(arguments.out / "target", "val", val.samples, labels=True, random=random)
    counts = f"{len(source)} faces of {PERSONS} persons, {len(hidden)} spoiled ones of others"
    print(f"written to {arguments.out}: {counts}, {len(val)} to test with")


def person_of(sample: Sample) -> str:
    """The person's name in the name of the file."""
    matched = re.fullmatch(r"(?:test_|train_|training_)?(.+?)_\d+\.jpg", Path(str(sample.image)).name)
    assert matched, sample.image
    return matched[1]


def found(data: FaceData, detector: HaarDetector) -> Iterator[Sample]:
    """The samples on which the detector finds one face, with its box."""
    for sample in data.samples:
        boxes = detector(sample.image.read())
        if len(boxes) == 1:
            yield Sample(sample.image, None, np.asarray(boxes[0, :4], dtype=np.float64))


def write(
    folder: Path, split: str, samples: Sequence[Sample], *, labels: bool, random: np.random.Generator | None
) -> None:
    """Write a split as a table of one's own; pictures are spoiled where there are random numbers for it."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    count = len(samples[0].landmarks) if samples[0].landmarks is not None else 0
    header = (
        [f"{axis}{n}" for n in range(count) for axis in "xy"] if labels else ["box_x0", "box_y0", "box_x1", "box_y1"]
    )
    with open(folder / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", *header])
        for sample in samples:
            result = Spoiled(sample.image.read(), sample.landmarks)
            if random is not None:
                result = spoil(result, sample.box, random)
            name = f"{split}-{Path(str(sample.image)).stem}.jpg"
            cv2.imwrite(str(folder / "images" / name), result.picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
            numbers = result.landmarks
            if not labels:
                numbers = sample.box if result.landmarks is None else tight_boxes(result.landmarks[None])[0]
            assert numbers is not None
            # The reader's tables count from the center of the first pixel.
            table.writerow([name, *(f"{value - 0.5:.2f}" for value in numbers.ravel())])


def spoil(face: Spoiled, box: Floats, random: np.random.Generator) -> Spoiled:
    """A picture that is turned, blurred, small and flat, as the module says."""
    height, width = face.picture.shape[:2]
    side = float(np.sqrt((box[2:] - box[:2]).prod()))
    x, y = (box[:2] + box[2:]) / 2
    angle = random.uniform(-TURN_DEG, TURN_DEG)
    turn = np.asarray(cv2.getRotationMatrix2D((float(x), float(y)), angle, 1.0), dtype=np.float64)
    # OpenCV counts from pixel centers.
    shifted = turn.copy()
    shifted[:, 2] += turn[:, :2] @ [0.5, 0.5] - 0.5
    picture = cv2.warpAffine(face.picture, shifted, (width, height), borderMode=cv2.BORDER_REPLICATE)
    picture = cv2.GaussianBlur(picture, (0, 0), max(BLUR * side, 0.1))
    zoom = min(random.uniform(*FACE_PX) / side, 1.0)
    small = cv2.resize(
        picture, (max(round(width * zoom), 1), max(round(height * zoom), 1)), interpolation=cv2.INTER_AREA
    )
    picture = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    mean, contrast, shift = picture.mean(), random.uniform(*CONTRAST), random.uniform(-BRIGHTNESS, BRIGHTNESS)
    flat = (picture.astype(np.float64) - mean) * contrast + mean + shift
    landmarks = None if face.landmarks is None else transform(turn[None], face.landmarks[None])[0]
    return Spoiled(flat.round().clip(0, 255).astype(np.uint8), landmarks)


if __name__ == "__main__":
    main()
