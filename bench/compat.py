"""Calls of other packages against our own, and what is made of landmarks: aligned crops, poses. On labelled faces."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pipnet_fast as pf
from bench.faces import labelled_faces
from bench.record import Record, device_name, measured
from bench.timing import interleaved
from pipnet_fast.compat.face_alignment import FaceAlignment, LandmarksType
from pipnet_fast.crop import transform
from pipnet_fast.geometry import head_pose, norm_crop, to_5pts
from pipnet_fast.layouts import load_layout

LAYOUT = "300w68"
ANGLES = ("yaw", "pitch", "roll")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with val.csv and images/")
    parser.add_argument("--split", default="val")
    parser.add_argument("--faces", type=int, default=100, help="evenly over the split (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="of timing (default: %(default)s)")


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Distances and times of FaceAlignment, norm_crop and head_pose with the model in the box and the labels' boxes."""
    torch.set_num_threads(1)
    data = labelled_faces(arguments.data / f"{arguments.split}.csv")
    samples = data.samples[:: max(1, len(data.samples) // arguments.faces)][: arguments.faces]
    photos = [sample.image.read() for sample in samples]
    labels = [np.asarray(sample.landmarks) for sample in samples]
    boxes = [np.asarray(sample.box)[None] for sample in samples]
    landmarker = pf.FaceLandmarker(detector=None, device="cpu", engine="torch", color="rgb")
    shim = FaceAlignment(LandmarksType.TWO_D, device="cpu", flip_input=False, compile=False)
    own = [landmarker(photo, box).landmarks[0] for photo, box in zip(photos, boxes, strict=True)]
    theirs = [shim.get_landmarks(photo, box)[0] for photo, box in zip(photos, boxes, strict=True)]

    # The pose of the labels says how far errors of landmarks turn a head; that of the mirror image should be mirrored.
    flip = load_layout(LAYOUT).flip
    found, labelled, mirrored, offs = [], [], [], []
    for photo, points, label in zip(photos, own, labels, strict=True):
        size = photo.shape[:2]
        found.append(angles(points, size))
        labelled.append(angles(label, size))
        turned = points[flip] * [-1, 1] + [size[1], 0]
        mirrored.append(angles(turned, size) * [-1, 1, -1])
        five = to_5pts(points, LAYOUT)
        aligned = norm_crop(photo, five)
        aim = norm_crop(photo, to_5pts(label, LAYOUT))
        offs.append(np.linalg.norm(transform(aligned.affines, five) - transform(aim.affines, five), axis=-1).max())

    calls = {
        "FaceLandmarker": lambda: landmarker(photos[0], boxes[0]),
        "FaceAlignment.get_landmarks": lambda: shim.get_landmarks(photos[0], boxes[0]),
        "norm_crop": lambda: norm_crop(photos[0], own[0], layout=LAYOUT),
        "head_pose": lambda: head_pose(own[0], photos[0].shape[:2], LAYOUT),
    }
    shared: dict[str, Any] = {"case": "compat", "device": device_name("cpu"), "threads": 1, "dtype": "float32"}
    shared["shape"] = f"{len(samples)} faces of {data.name}"
    times = interleaved(calls, arguments.rounds, "cpu", inner=3)
    records = [measured({**shared, "subject": name}, "time of a call", "ms", values) for name, values in times.items()]
    apart = [float(np.abs(a - b).max()) for a, b in zip(own, theirs, strict=True)]
    aligned_by = {**shared, "subject": "norm_crop"}
    records += [
        measured({**shared, "subject": "FaceAlignment.get_landmarks"}, "farthest from FaceLandmarker's", "px", apart),
        measured(aligned_by, "farthest of five points from where labels put them", "px of 112", offs),
    ]
    posed = {**shared, "subject": "head_pose"}
    for metric, others in (("off that of the labels", labelled), ("off the mirror image's", mirrored)):
        for angle, values in zip(ANGLES, np.abs(np.array(found) - np.array(others)).T, strict=True):
            records.append(measured(posed, f"{angle} {metric}", "degrees", values.tolist()))
    return records


def angles(points: Any, size: tuple[int, ...]) -> Any:
    """Yaw, pitch and roll in degrees."""
    pose = head_pose(points, size, LAYOUT)
    return np.array([pose.yaw_deg, pose.pitch_deg, pose.roll_deg])
