"""``pipnet-fast video``: landmarks of a video's or camera's faces, as a video and as JSON."""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from pipnet_fast._files import place_whole
from pipnet_fast.cli._arguments import add_landmarker_options
from pipnet_fast.pipeline.ahead import ahead
from pipnet_fast.pipeline.capture import VideoError
from pipnet_fast.pipeline.draw import draw_faces
from pipnet_fast.pipeline.faces import Faces
from pipnet_fast.pipeline.landmarker import FaceLandmarker
from pipnet_fast.pipeline.video import VideoFrame, VideoReader, VideoWriter, codecs_of
from pipnet_fast.tracking.settings import DETECT_EVERY, MIN_SCORE, SMOOTHING
from pipnet_fast.tracking.tracker import Tracker

# Frames that wait between decoding, landmarks and encoding.
QUEUE = 8


class Tracked(NamedTuple):
    """A frame and its faces."""

    frame: VideoFrame
    faces: Faces


Sink = Callable[[Tracked], None]


def add_command(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "video",
        help="follow faces through a video or camera",
        description="Find the landmarks of all faces in a video and follow them: ids stay, jitter is smoothed. Writes "
        "the video with landmarks, boxes and ids drawn (without sound, at a constant frame rate), or a JSON object a "
        "frame, {frame, time_s, faces}, or both. Files appear when they are whole. A video that ends before its header "
        "says is written as far as it goes, with exit status 1. A camera goes on until Ctrl-C.",
    )
    parser.add_argument("input", metavar="IN", help="a video file, or the number of a camera")
    parser.add_argument("--out", metavar="VIDEO", help="video to write: .mp4, .mov, .mkv or .avi")
    parser.add_argument("--json", metavar="FILE", help="landmarks: .jsonl, a line a frame, or .json, a list of frames")
    add_landmarker_options(parser)
    parser.add_argument(
        "--smoothing", type=float, default=SMOOTHING, metavar="S", help="0, none, to 1, calm (default: %(default)s)"
    )
    parser.add_argument(
        "--detect-every",
        type=int,
        default=DETECT_EVERY,
        metavar="N",
        help="look for new faces every N frames (default: %(default)s)",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        default=MIN_SCORE,
        metavar="S",
        help="mean landmark score, 0 to 1, below which a face is lost (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Track a video; 1 if it was cut off."""
    source = source_of(arguments.input)
    check_outputs(source, arguments.out, arguments.json)
    landmarker = FaceLandmarker(arguments.model, arguments.detector, arguments.device, arguments.engine, color="rgb")
    tracker = Tracker(
        landmarker,
        smoothing=arguments.smoothing,
        detect_every=arguments.detect_every,
        min_score=arguments.min_score,
    )
    ids: set[int] = set()
    frames = 0
    # Ctrl-C is how a camera's recording ends.
    ending = (KeyboardInterrupt,) if isinstance(source, int) else ()
    with contextlib.closing(VideoReader(source)) as video, contextlib.ExitStack() as outputs:
        sinks: list[Sink] = []
        if arguments.out:
            sinks.append(outputs.enter_context(video_sink(arguments.out, video.fps)))
        if arguments.json:
            sinks.append(outputs.enter_context(json_sink(arguments.json)))
        start = time.perf_counter()
        with contextlib.suppress(*ending), contextlib.closing(background(video, tracker)) as tracked:
            # Without a terminal there is no bar: it would stand among the messages of a log.
            for item in tqdm(tracked, total=video.expected, unit="frame", leave=False, disable=None):
                for sink in sinks:
                    sink(item)
                ids.update(item.faces.ids.tolist())
                frames += 1
        if not frames:
            raise VideoError(f"{video.name}: no frame could be read")
        rate = frames / (time.perf_counter() - start)
    written = " and ".join(filter(None, (arguments.out, arguments.json)))
    print(f"{len(ids)} face(s) in {frames} frame(s), {rate:.1f} frames/s, written to {written}")
    if video.is_cut_off:
        print(
            f"{video.name}: cut off or damaged: {video.read} of {video.expected} frames could be read", file=sys.stderr
        )
        return 1
    return 0


def source_of(text: str) -> str | int:
    """A camera's number, or the path of a file."""
    return int(text) if text.isascii() and text.isdigit() and not os.path.exists(text) else text


def check_outputs(source: str | int, out: str | None, json_file: str | None) -> None:
    """Raise a ValueError where the outputs cannot be written, before anything is computed."""
    if not out and not json_file:
        raise ValueError("expected --out, --json or both")
    if out:
        codecs_of(out)
    if json_file and Path(json_file).suffix.lower() not in (".json", ".jsonl"):
        raise ValueError(f"--json: expected a name that ends in .jsonl or .json, got {json_file!r}")
    for flag, path in (("--out", out), ("--json", json_file)):
        if path and isinstance(source, str) and os.path.exists(path) and os.path.samefile(source, path):
            raise ValueError(f"{flag}: expected another file than the input {source}")
        if path and not Path(path).parent.is_dir():
            raise FileNotFoundError(f"{flag}: no such folder: {Path(path).parent}")
        if path and os.path.isdir(path):
            raise ValueError(f"{flag}: expected a file, got the folder {path}")


def background(video: VideoReader, tracker: Tracker) -> Generator[Tracked, None, None]:
    """Frames and their faces; decoding and tracking have a thread each."""

    def track(frames: Generator[VideoFrame, None, None]) -> Iterator[Tracked]:
        with contextlib.closing(frames):
            for frame in frames:
                yield Tracked(frame, tracker.update(frame.image, frame.time_s))

    return ahead(track(ahead(video, QUEUE)), QUEUE)


@contextlib.contextmanager
def video_sink(path: str, fps: float) -> Iterator[Sink]:
    """Writes frames with their faces drawn."""
    with place_whole(path) as temporary:
        writer = VideoWriter(temporary, fps)
        try:
            yield lambda item: writer.write(draw_faces(item.frame.image, item.faces), item.frame.time_s)
        finally:
            writer.close()


@contextlib.contextmanager
def json_sink(path: str) -> Iterator[Sink]:
    """Writes a JSON object a frame: on a line of its own, or as entries of a list."""
    as_list = Path(path).suffix.lower() == ".json"
    before, between, after = ("[\n", ",\n", "\n]\n") if as_list else ("", "\n", "\n")
    with place_whole(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(before)

        def write(item: Tracked) -> None:
            frame = item.frame
            record = {"frame": frame.number, "time_s": round(frame.time_s, 6), "faces": item.faces.to_dict()}
            file.write((between if frame.number else "") + json.dumps(record))

        yield write
        file.write(after)
