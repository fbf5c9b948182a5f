"""What an installed wheel must do, with no test framework and outside the source tree."""

import argparse
import importlib.util

import numpy as np
import torch

import pipnet_fast as pf

parser = argparse.ArgumentParser()
parser.add_argument("--pure", action="store_true", help="expect an install without the C++ extension")
pure = parser.parse_args().pure

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

faces = pf.FaceLandmarker()(np.zeros((64, 64, 3), dtype=np.uint8))
assert faces.landmarks.shape == (0, 68, 2)
print("smoke test passed")
