"""``pipnet-fast detect``: landmarks of photos, as pictures, JSON and CSV."""

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from pipnet_fast.cli._arguments import add_landmarker_options, folder_argument
from pipnet_fast.data.readers.images import IMAGES
from pipnet_fast.pipeline.draw import draw_faces, write_png
from pipnet_fast.pipeline.faces import Faces
from pipnet_fast.pipeline.images import ImageError, read_rgb
from pipnet_fast.pipeline.landmarker import FaceLandmarker

# The end of the names of the pictures that this command writes.
PICTURE = "_landmarks.png"
# The table of all faces.
TABLE = "landmarks.csv"
# How the records begin that it writes.
RECORD_START = '{"photo": '
# File systems take 255 bytes; eight are left for a number.
LONGEST_STEM = 255 - len(PICTURE) - 8


def add_command(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "detect",
        help="find landmarks in photos",
        description="Find the landmarks of all faces in photos. Writes DIR/NAME_landmarks.png (the photo with its "
        "landmarks, a color a face) and DIR/NAME.json for each photo, and DIR/landmarks.csv, a row a face. Coordinates "
        "are pixels of the photo, continuous: the center of the first pixel is 0.5. Results of an earlier call for "
        "photos of the same names are replaced, other files are not. Photos that cannot be read are passed over and "
        "listed at the end, with exit status 1.",
    )
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="image files, or folders of them")
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that detect and demo share."""
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results, made if need be")
    add_landmarker_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Annotate every photo; 1 if some could not be read."""
    landmarker = FaceLandmarker(arguments.model, arguments.detector, arguments.device, arguments.engine, color="rgb")
    out = folder_argument("--out", arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    photos, failed = expand(arguments.photos)
    names = target_names(photos, out)
    check_targets(out, names)
    found = read = 0
    # File names need not be UTF-8, but the table must be.
    with open(out / TABLE, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        table = csv.writer(file)
        table.writerow(header(landmarker.model.config.num_landmarks))
        jobs = zip(photos, names, strict=True)
        # Without a terminal there is no bar: it would stand among the messages of a log.
        for photo, name in tqdm(jobs, total=len(photos), unit="photo", leave=False, disable=None):
            try:
                faces = annotate(landmarker, photo, out / name)
            except (ImageError, cv2.error) as error:
                failed.append(str(error) if isinstance(error, ImageError) else f"{photo}: {error}")
                continue
            table.writerows(rows(photo, faces))
            read, found = read + 1, found + len(faces)
    print(f"{found} face(s) in {read} photo(s), written to {out}")
    if failed:
        print(f"{len(failed)} of {len(failed) + read} input(s) could not be read:", file=sys.stderr)
        for message in failed:
            print(f"  {message}", file=sys.stderr)
    return 1 if failed else 0


def annotate(landmarker: FaceLandmarker, photo: Path, target: Path) -> Faces:
    """Find the faces of one photo and write TARGET_landmarks.png and TARGET.json."""
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
    write_png(f"{target}{PICTURE}", draw_faces(image, faces))
    return faces


def expand(names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The photos: files as they are, for a folder the images directly in it, by name; and what is wrong."""
    photos: list[Path] = []
    wrong: list[str] = []
    for path in map(Path, names):
        if not path.is_dir():
            photos.append(path)
            continue
        # A second run into the photos' own folder must not annotate the first one's pictures.
        # A file named outright may be anything OpenCV reads.
        inside = sorted(
            p for p in path.iterdir() if p.suffix.lower() in IMAGES and not p.name.endswith(PICTURE) and p.is_file()
        )
        photos += inside
        if not inside:
            wrong.append(f"{path}: a folder without images")
    return photos, wrong


def target_names(photos: Sequence[Path], out: Path) -> list[str]:
    """A name for each photo's results: its stem, and a number where two would be one, or would be a photo."""
    inputs = {photo.resolve() for photo in photos}
    taken: set[str] = {"landmarks"}
    names = []
    for photo in photos:
        stem, number = _shortened(photo.stem), 2
        name = stem
        # Compared without case, for some file systems do.
        while name.lower() in taken or (out / f"{name}{PICTURE}").resolve() in inputs:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name.lower())
        names.append(name)
    return names


def check_targets(out: Path, names: Sequence[str]) -> None:
    """Raise a ValueError if a file that is to be written is there already and not this command's."""
    starts = {f"{name}.json": RECORD_START for name in names} | {TABLE: ",".join(header(0))}
    for name, start in starts.items():
        path = out / name
        if os.path.lexists(path) and not _begins_with(path, start):
            raise ValueError(f"--out: {path} is there already, and no result of this command; take another folder")


def _begins_with(path: Path, start: str) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(start)) == start.encode()


def _shortened(stem: str) -> str:
    """A stem whose longest result may have a name on any file system, with a number too."""
    while len(os.fsencode(stem)) > LONGEST_STEM:
        stem = stem[:-1]
    return stem


def header(num_landmarks: int) -> list[str]:
    """Column names of the table."""
    points = [f"{axis}{n}" for n in range(num_landmarks) for axis in "xy"]
    return ["photo", "face", "box_x0", "box_y0", "box_x1", "box_y1", "score", *points]


def rows(photo: Path, faces: Faces) -> Iterator[list[Any]]:
    """One row a face."""
    for index in range(len(faces)):
        numbers = [f"{v:.3f}" for v in (*faces.boxes[index], *faces.landmarks[index].ravel())]
        yield [os.fspath(photo), index, *numbers]
