"""``pipnet-fast detect``: landmarks of photos, as pictures, JSON and CSV."""

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipnet_fast.pipeline.draw import draw_faces, write_png
from pipnet_fast.pipeline.faces import Faces
from pipnet_fast.pipeline.images import ImageError, read_rgb
from pipnet_fast.pipeline.landmarker import FaceLandmarker

# What a folder is searched for; a file named outright may be anything OpenCV reads.
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def add_command(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "detect",
        help="find landmarks in photos",
        description="Find the landmarks of all faces in photos. Writes DIR/NAME.png (the photo with its landmarks, a "
        "color a face) and DIR/NAME.json for each photo, and DIR/landmarks.csv, a row a face. Coordinates are "
        "pixels of the photo, continuous: the center of the first pixel is 0.5. Photos that cannot be read are "
        "passed over and listed at the end, with exit status 1.",
    )
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="image files, or folders of them")
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that detect and demo share."""
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results, made if need be")
    parser.add_argument("--model", metavar="FILE", help=".safetensors model (default: the one in the box)")
    parser.add_argument("--detector", default="auto", metavar="NAME", help="auto, haar or yunet:PATH")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--engine", default="auto", help="auto or one of those that `pipnet-fast info` lists")


def run(arguments: argparse.Namespace) -> int:
    """Annotate every photo; 1 if some could not be read."""
    landmarker = FaceLandmarker(arguments.model, arguments.detector, arguments.device, arguments.engine, color="rgb")
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    photos = list(expand(arguments.photos))
    failed: list[str] = []
    found = 0
    with open(out / "landmarks.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(header(landmarker.model.config.num_landmarks))
        progress = tqdm(zip(photos, unique_names(photos), strict=True), total=len(photos), unit="photo", leave=False)
        for photo, name in progress:
            try:
                faces = annotate(landmarker, photo, out / name)
            except ImageError as error:
                failed.append(str(error))
                continue
            table.writerows(rows(photo, faces))
            found += len(faces)
    print(f"{found} face(s) in {len(photos) - len(failed)} photo(s), written to {out}")
    if failed:
        print(f"{len(failed)} of {len(photos)} photo(s) could not be read:", file=sys.stderr)
        for message in failed:
            print(f"  {message}", file=sys.stderr)
    return 1 if failed else 0


def annotate(landmarker: FaceLandmarker, photo: Path, target: Path) -> Faces:
    """Find the faces of one photo and write TARGET.png and TARGET.json."""
    image = read_rgb(photo)
    faces = landmarker(image)
    record = {
        "photo": str(photo),
        "width": image.shape[1],
        "height": image.shape[0],
        "faces": faces.to_dict(),
    }
    # Added to the name, not put in a suffix's place: a.b.jpg and a.c.jpg are two photos.
    Path(f"{target}.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    write_png(f"{target}.png", draw_faces(image, faces))
    return faces


def expand(photos: Sequence[str]) -> Iterator[Path]:
    """Files as they are; for a folder the images directly in it, by name."""
    for photo in map(Path, photos):
        if photo.is_dir():
            yield from sorted(p for p in photo.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        else:
            yield photo


def unique_names(photos: Sequence[Path]) -> list[str]:
    """A name for each photo's results: its stem, and a number where stems repeat."""
    taken: set[str] = {"landmarks"}
    names = []
    for photo in photos:
        stem, name, number = photo.stem, photo.stem, 2
        # Compared without case, for some file systems do.
        while name.lower() in taken:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name.lower())
        names.append(name)
    return names


def header(num_landmarks: int) -> list[str]:
    """Column names of the table."""
    points = [f"{axis}{n}" for n in range(num_landmarks) for axis in "xy"]
    return ["photo", "face", "box_x0", "box_y0", "box_x1", "box_y1", "score", *points]


def rows(photo: Path, faces: Faces) -> Iterator[list[Any]]:
    """One row a face."""
    for index in range(len(faces)):
        numbers = [f"{v:.3f}" for v in (*faces.boxes[index], *faces.landmarks[index].ravel())]
        yield [os.fspath(photo), index, *numbers]
