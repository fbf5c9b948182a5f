"""What an installed wheel must do, with no test framework and outside the source tree."""

import argparse
import importlib.util
import subprocess
from pathlib import Path

import numpy as np
import torch

import pipnet_fast as pf
from pipnet_fast.crop import tight_boxes

parser = argparse.ArgumentParser()
parser.add_argument("--pure", action="store_true", help="expect an install without the C++ extension")
parser.add_argument("--library", type=Path, help="the C library's example program, to find what the package finds")
arguments = parser.parse_args()
pure = arguments.pure

backends = pf.ops.backends()
print(pf.__file__, backends)
assert backends["cpp"] != pure, backends
if pure:
    assert "compiler" in backends.reasons["cpp"], backends

model = pf.PIPNet("resnet18", 19, 5, mean_shape="aflw19").eval()
x = torch.randn(2, 3, 64, 64)
landmarks = model.predict(x)
expected = pf.ops.decode(model(x), model.table, backend="reference")
assert torch.allclose(landmarks.points_frac, expected.points_frac, atol=1e-4)

# Found, not imported: triton need not be here.
assert importlib.util.find_spec("pipnet_fast.kernels") is not None

landmarker = pf.FaceLandmarker(color="rgb")
faces = landmarker(np.zeros((64, 64, 3), dtype=np.uint8))
assert faces.landmarks.shape == (0, 68, 2)

if arguments.library:
    from skimage.data import astronaut

    photo = astronaut()
    (box,) = tight_boxes(landmarker(photo).landmarks)
    Path("photo.ppm").write_bytes(b"P6 %d %d 255\n" % photo.shape[1::-1] + photo.tobytes())
    pf.save_plan(landmarker.model, "box.plan")
    command = [arguments.library, "box.plan", "photo.ppm", *map(str, box)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    found = np.array([line.split() for line in printed.splitlines()], dtype=float)
    faces = landmarker(photo, [box])
    # OpenCV, which cuts the package's crops, rounds otherwise.
    assert np.abs(found[:, :2] - faces.landmarks[0]).max() < 0.1, found
    assert np.abs(np.clip(found[:, 2], 0, 1) - faces.scores[0]).max() < 0.02, found
print("smoke test passed")
