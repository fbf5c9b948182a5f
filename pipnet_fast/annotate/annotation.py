"""Landmarks of all faces in any number of photos and videos, into one table of Parquet files."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from pipnet_fast._errors import require_int
from pipnet_fast._files import write_whole
from pipnet_fast._parquet import arrow, read_part
from pipnet_fast.annotate.folder import RunFolder
from pipnet_fast.annotate.inputs import Inputs
from pipnet_fast.annotate.parts import Share, image_schema
from pipnet_fast.annotate.processes import annotate_by_processes, annotate_here
from pipnet_fast.annotate.ray_cluster import annotate_by_ray
from pipnet_fast.annotate.sources import check_sources, list_paths
from pipnet_fast.annotate.work import Job
from pipnet_fast.data._optional import import_optional
from pipnet_fast.models import LandmarkModel
from pipnet_fast.models.digest import model_digest
from pipnet_fast.pipeline.detectors import Detector, create_detector
from pipnet_fast.pipeline.landmarker import as_model

# The version of the layout of the tables.
FORMAT = "pipnet_fast.annotations/1"

PLACES = ("processes", "ray")

# So many messages; the table of errors has all.
MESSAGES = 10


class Annotations(NamedTuple):
    """What a finished run has found."""

    folder: Path
    """Where the tables are."""
    images: int
    """Photos, and frames of videos, that were read."""
    faceless: int
    """Of those, the ones without a face."""
    faces: int
    """In the others."""
    errors: int
    """Photos, frames and videos that could not be read."""
    messages: tuple[str, ...]
    """Why, of the first of those."""


class Progress(NamedTuple):
    """How far a run has come."""

    done: int
    """Files of the shares that are done."""
    total: int
    """All of them."""


def annotate(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | LandmarkModel | None = None,
    detector: str | os.PathLike[str] | Detector = "auto",
    device: str = "auto",
    engine: str = "auto",
    batch_size: int = 32,
    every: int = 5,
    shard_size: int | None = None,
    processes: int | None = None,
    on: str = "processes",
    on_progress: Callable[[Progress], object] | None = None,
) -> Annotations:
    """Find the landmarks of all faces in photos and videos and write them into a folder of Parquet files.

    The folder as a whole is the table of faces, for ``pandas.read_parquet(out)`` for instance: path, absolute; frame,
    of a video and counted from 0, else null; face, from 0 in its picture; box (5), x0, y0, x1, y1 in px and score;
    landmarks (2 N) in px, x before y, continuous; scores (N), 0..1; model, a digest of it. In ``out/_images`` every
    picture has a row, those without a face too: path, frame, faces, error. ``out/_errors.parquet`` has those of them
    that could not be read. Names that are no UTF-8 are written with backslashes.

    A call that was killed, in whatever way, is made again and goes on: what is written stays, and every picture is in
    the table once. A worker's death costs a part of its share, begun anew one picture at a time; a picture that
    goes on killing is given up and is an error. Memory does not grow with the number of pictures, but for 8 bytes
    a file while the sources are listed.

    Args:
        sources: files, folders, patterns and, as ``@FILE``, lists of files; see ``list_paths``. A file that is named
            twice is annotated once.
        out: the folder: a new or an empty one, or that of a run with the same files, model and options.
        model: None for the model in the box, the path of a ``.safetensors`` model, or a model, in float32.
        detector: "auto", "haar", "yunet:PATH", a ``.json`` file, or a callable, as for ``FaceLandmarker``; a callable
            is copied to the workers by pickling, and told from others by the name of its class or function only.
        device: "auto", "cpu", "cuda" and so on.
        engine: as for ``FaceLandmarker``.
        batch_size: pictures in one forward pass, at most; large ones are fewer.
        every: take frames 0, every, 2 every, ... of videos.
        shard_size: photos in a share, which is what a worker does at a time; a video counts as 64. None: 1024, or
            fewer where there would be less than 64 shares.
        processes: workers, each with one thread; None, one for every core. 0, none: the work is done in this process,
            which a picture may then kill. With Ray, tasks at once.
        on: "processes" of this machine, or "ray", a cluster.
        on_progress: is called at the beginning, and when a share is done.

    Raises:
        TypeError, ValueError: an argument out of its range; a source that is not there, or without a file; a folder
            of another run; a detector that returns no boxes.
        FloatingPointError: landmarks that are not finite.
        FileNotFoundError: no such model or detector file.
        OSError: the disk is full, or the folder cannot be written.
        RuntimeError: a detector or device that is not present; another run in the same folder; workers that die again
            and again; machines that do not share the folder.
        ImportError: pyarrow is missing, or Ray.
    """
    import_optional("pyarrow", "annotate", "annotate")
    names = _names(sources)
    check_sources(names)
    if isinstance(detector, os.PathLike):
        detector = os.fspath(detector)
    find = create_detector(detector)
    if find is None:
        raise TypeError('annotate: detector: expected "auto", "haar", "yunet:PATH" or a callable, got None')
    for argument, value, least in (("batch_size", batch_size, 1), ("every", every, 1)):
        require_int("annotate", argument, value, least)
    if shard_size is not None:
        require_int("annotate", "shard_size", shard_size, 1)
    if on not in PLACES:
        raise ValueError(f"annotate: on: expected one of {list(PLACES)}, got {on!r}")
    if processes is not None:
        require_int("annotate", "processes", processes, 1 if on == "ray" else 0)
    if on == "ray":
        import_optional("ray", "annotate: on='ray'", "ray")
    network = as_model("annotate", model)

    folder = RunFolder(Path(os.path.abspath(out)))
    with folder.locked():
        listing = Inputs.freeze(list_paths(names), folder.new_list, shard_size)
        if not listing.inputs:
            raise ValueError(f"annotate: sources: expected images or videos, found none in {', '.join(names)}")
        identity = {
            "format": FORMAT,
            **listing._asdict(),
            "model": model_digest(network),
            "landmarks": network.config.num_landmarks,
            "crop": asdict(network.crop),
            "detector": _name(detector, find),
            "every": every,
        }
        folder.begin(identity, network)
        job = Job(folder.path, json.dumps(identity), detector, device, engine, batch_size, every)
        inputs = Inputs(folder.list)
        left = [shard for shard in range(len(inputs)) if _is_left(folder, identity, shard)]
        progress = Progress(listing.inputs - sum(map(inputs.count, left)), listing.inputs)
        tell = on_progress or (lambda progress: None)
        tell(progress)
        for shard in _annotated(job, left, on, processes):
            progress = progress._replace(done=progress.done + inputs.count(shard))
            tell(progress)
        missing = [shard for shard in left if _is_left(folder, identity, shard)]
        if missing:
            raise RuntimeError(
                f"annotate: {len(missing)} of {len(inputs)} shares were done but are not in {folder.path}; let all "
                "machines share the folder"
            )
        return _summed_up(folder)


def _annotated(job: Job, shards: Sequence[int], on: str, processes: int | None) -> Iterator[int]:
    """The shares as they are done."""
    if not shards:
        return iter(())
    if on == "ray":
        return annotate_by_ray(job, shards, processes)
    if processes == 0:
        return annotate_here(job, shards)
    return annotate_by_processes(job, shards, processes or _cores())


def _summed_up(folder: RunFolder) -> Annotations:
    """Count, and write the table of errors."""
    parquet, compute = arrow("pyarrow.parquet"), arrow("pyarrow.compute")
    images, faceless, faces, errors = 0, 0, 0, 0
    messages: list[str] = []

    def write(file: Any) -> None:
        nonlocal images, faceless, faces, errors
        schema = image_schema()
        schema = schema.remove(schema.get_field_index("faces"))
        with parquet.ParquetWriter(file, schema) as writer:
            for path in sorted(folder.images.glob("part-*.parquet")):
                table = read_part(path)
                bad = table.filter(table["error"].is_valid())
                images += len(table) - len(bad)
                errors += len(bad)
                faceless += int(compute.sum(compute.equal(table["faces"], 0)).as_py() or 0)
                faces += int(compute.sum(table["faces"]).as_py() or 0)
                messages.extend(bad["error"][: MESSAGES - len(messages)].to_pylist())
                if len(bad):
                    writer.write_table(bad.drop_columns("faces").cast(schema))

    write_whole(folder.errors, write, one_writer=True, durable=True)
    return Annotations(folder.path, images, faceless, faces, errors, tuple(messages))


def _names(sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    given = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    names = []
    for source in given:
        name = os.fspath(source) if isinstance(source, os.PathLike) else source
        if not isinstance(name, str):
            raise TypeError(f"annotate: sources: expected paths as text, got {type(name).__name__}")
        names.append(name)
    if not names:
        raise ValueError("annotate: sources: expected at least one, got none")
    return names


def _name(detector: str | Detector, find: Detector) -> str:
    """What tells a detector from others."""
    if not isinstance(detector, str):
        return str(getattr(find, "__qualname__", type(find).__qualname__))
    if detector in ("auto", "haar"):
        return "haar"
    # Others are files, which may change.
    content = Path(detector.removeprefix("yunet:")).read_bytes()
    return f"{type(find).__name__} {hashlib.sha256(content).hexdigest()[:16]}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_left(folder: RunFolder, identity: dict[str, Any], shard: int) -> bool:
    return Share(folder, identity, shard).progress()[1] is not None
