"""Cases on labelled faces: their measures against known answers, and each case once on a photo moved about."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import pipnet_fast as pf
from pipnet_fast.cli.demo import astronaut
from pipnet_fast.crop import tight_boxes
from pipnet_fast.data import open_data
from pipnet_fast.pipeline.detectors import HaarDetector
from pipnet_fast.pipeline.images import read_rgb
from tests.commands import RunBench, bench
from tests.pictures import centers, dots

STILL, SWAYING = "at rest", "swaying"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables like ytf68's: six persons in two files each, all of them the same photo, with what the model finds."""
    root = tmp_path_factory.mktemp("faces")
    (root / "images").mkdir()
    photo = read_rgb(astronaut())[:256, 80:400]
    (points,) = pf.FaceLandmarker(device="cpu", engine="torch", color="rgb")(photo).landmarks
    rows = {"train": [], "val": []}
    for person in "abcdef":
        for frame in range(2):
            name = f"{person}_{frame}.jpg"
            shift = np.array([8 * frame, 4 * frame])
            moved = np.roll(photo, shift[::-1], axis=(0, 1))
            cv2.imwrite(str(root / "images" / name), moved[..., ::-1])
            rows["val" if person == "f" else "train"].append([name, *(points + shift - 0.5).ravel()])
    for split, faces in rows.items():
        with open(root / f"{split}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file", *(f"{axis}{n}" for n in range(68) for axis in "xy")])
            table.writerows(faces)
    (root / "unlabelled.txt").write_text("a_0.jpg\nb_1.jpg\n")
    return root


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunBench:
    return RunBench(monkeypatch, tmp_path / "records.json")


@pytest.fixture
def clip(folder: Path):
    tracking = bench("tracking")
    (sample, *_) = open_data("table", folder, "val", layout="300w68").samples
    return tracking.make_clip(sample, tracking.MOTIONS[SWAYING], 60, seed=0)


def test_truth_has_no_jitter_no_error_and_no_lag(clip) -> None:
    assert bench("tracking").judge(clip.truth, clip) == pytest.approx({"jitter": 0, "NME": 0, "lag": 0}, abs=1e-9)


def test_a_shift_in_the_photo_is_error_and_no_jitter(clip) -> None:
    eyes = np.linalg.norm(clip.labels[36] - clip.labels[45])
    shifted = replace(clip, labels=clip.labels + np.array([3.0, 4.0])).truth
    assert bench("tracking").judge(shifted, clip) == pytest.approx({"jitter": 0, "NME": 500 / eyes, "lag": 0}, abs=1e-9)


def test_landmarks_that_come_late_lag_by_their_delay(clip) -> None:
    tracking = bench("tracking")
    late = np.concatenate((np.full_like(clip.truth[:2], np.nan), clip.truth[:-2]))
    assert tracking.judge(late, clip)["lag"] == pytest.approx(2e3 / tracking.FPS, rel=0.05)


def test_noise_is_jitter_by_its_second_differences(clip) -> None:
    noise = np.random.default_rng(0).normal(0, 0.5, clip.truth.shape)
    side = np.sqrt(np.ptp(clip.labels, axis=0).prod())
    scale = np.sqrt(np.linalg.det(clip.affines[:, :, :2])).mean()
    # Variances of x(t+1) - 2 x(t) + x(t-1): 1 + 4 + 1 times that of x, in each of two axes.
    expected = 100 * 0.5 / scale * np.sqrt(6 * 2) / side
    assert bench("tracking").judge(clip.truth + noise, clip)["jitter"] == pytest.approx(expected, rel=0.05)


def test_frames_show_the_face_where_the_truth_is(clip) -> None:
    tracking = bench("tracking")
    photo = dots(clip.labels[[0, 8, 16]], 256, 320)
    for affine, truth in list(zip(clip.affines, clip.truth, strict=True))[::20]:
        frame = tracking.shown(photo, affine)
        np.testing.assert_allclose(centers(frame), truth[[0, 8, 16]], atol=0.2)


def test_tracking_case(records: RunBench, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = bench("tracking")
    monkeypatch.setattr(tracking, "FACES_TOGETHER", (1,))
    options = ("--people", "2", "--frames", "6", "--rounds", "1", "--motion", STILL)
    found = records("tracking", "--data", str(folder), "--split", "train", *options)
    by = {(r["subject"], r["metric"]): r["median"] for r in found if STILL in r["shape"]}
    for method in tracking.METHODS:
        assert by[method, "NME"] < 5
        assert by[method, "frames without the face"] == 0
        assert by[method, "lag"] == 0
    calls = "frames with a call of the detector"
    assert by["boxes of the labels", calls] == 0
    assert by["boxes of the detector", calls] == 100
    assert 0 < by["track, smoothing 0 (none)", calls] < 100
    assert by["track, smoothing 1 (calm)", "jitter"] < by["track, smoothing 0 (none)", "jitter"]


def test_compat_case(records: RunBench, folder: Path) -> None:
    found = records("compat", "--data", str(folder), "--faces", "2", "--rounds", "1")
    by = {(r["subject"], r["metric"]): r["median"] for r in found}
    assert by["FaceAlignment.get_landmarks", "farthest from FaceLandmarker's"] < 1e-3
    assert by["norm_crop", "farthest of five points from where labels put them"] < 4
    for angle in ("yaw", "pitch", "roll"):
        assert by["head_pose", f"{angle} off that of the labels"] < 5
        assert by["head_pose", f"{angle} off the mirror image's"] < 1


def test_detector_boxes_case_undoes_the_style(records: RunBench, folder: Path) -> None:
    found = {r["metric"]: r["median"] for r in records("detector_boxes", "--data", str(folder), "--split", "val")}
    assert found["detection rate, mean"] == 1
    assert found["overlap"] > 0.5
    # A box and what it becomes by the style: taken back, it is the box again.
    boxes, style = bench("detector_boxes"), HaarDetector.STYLE
    raw = np.array([10.0, 20.0, 110.0, 140.0])
    center, size = (raw[:2] + raw[2:]) / 2, raw[2:] - raw[:2]
    middle = center + size * (style.shift_x, style.shift_y)
    half = size * (style.scale_x, style.scale_y) / 2
    np.testing.assert_allclose(boxes.undo(np.concatenate((middle - half, middle + half)), style), raw)


def test_annotate_case_finds_in_processes_what_the_loop_finds(
    records: RunBench, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    annotate, said = bench("annotate"), []

    def here(module: str, *words: str) -> dict[str, float]:
        """A run in this process, for others take seconds to begin."""
        records.call(module.removeprefix("bench."), *words)
        said.append(json.loads(capsys.readouterr().out))
        return {**said[-1], "peak": 1e6}

    monkeypatch.setattr(annotate, "in_processes", here)
    monkeypatch.setattr(cv2, "setNumThreads", lambda count: None)
    options = ("--images", "2", "--times", "2", "--processes", "1", "--rounds", "1", "--engine", "torch")
    found = records("annotate", "--data", str(folder), *options)
    assert [run["faces"] for run in said] == [2, 2, 4, 4]
    rates = {(r["subject"], r["shape"].rpartition("; ")[2]): r for r in found if r["metric"] == "pictures per second"}
    assert list(rates) == [
        (subject, f"{count} pictures") for subject in (annotate.LOOP, "annotate, 1 process") for count in (2, 4)
    ]
    assert rates["annotate, 1 process", "4 pictures"]["median"] == pytest.approx(4 / said[3]["seconds"], rel=1e-3)
    (size,) = (r["median"] for r in found if r["metric"] == "table, bytes a face")
    assert size == pytest.approx(said[3]["bytes"] / 4, rel=1e-3)


def test_domain_gap_hides_labels_and_nobody_is_in_two_sets(
    records: RunBench, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gap = bench("domain_gap")
    monkeypatch.setattr(gap, "PERSONS", 2)
    records.call("domain_gap", "--data", str(folder), "--out", str(tmp_path / "gap"), "--offset-px", "0", "0")
    read = {
        (domain, split): (tmp_path / "gap" / domain / f"{split}.csv").read_text().splitlines()
        for domain in ("source", "target")
        for split in ("train", "val")
    }
    persons = {key: {line.split("-")[1][0] for line in lines[1:]} for key, lines in read.items()}
    assert len(persons["source", "train"]) == 2
    assert len(read["source", "train"]) == 1 + 4
    assert persons["source", "val"] == persons["target", "val"] == {"f"}
    assert read["target", "train"][0] == "file,box_x0,box_y0,box_x1,box_y1"
    # Three persons with their labels taken away, and what a detector found in the frames that had none.
    assert len(read["target", "train"]) == 1 + 6 + 2
    labelled_too = {line.split("-")[1][0] for line in read["target", "train"][1:7]}
    assert not labelled_too & persons["source", "train"]


def test_domain_gap_turns_labels_with_the_picture() -> None:
    gap = bench("domain_gap")
    points = np.array([[60.0, 70.0], [130.0, 66.0], [101.0, 120.0]])
    (box,) = tight_boxes(points[None])
    turned = []
    for seed in range(4):
        spoiled = gap.spoil(gap.Spoiled(dots(points, 180, 200), points), box, np.random.default_rng(seed))
        assert spoiled.landmarks is not None
        turned.append(np.linalg.norm(spoiled.landmarks - points, axis=1).max())
        lifted = spoiled.picture.astype(float) - np.median(spoiled.picture, axis=(0, 1))
        np.testing.assert_allclose(centers((lifted - 10).clip(0)), spoiled.landmarks, atol=3)
    assert max(turned) > 10
