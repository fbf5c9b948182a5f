"""How far a backend may be from the reference, in one place, with reasons."""

import torch
from torch import Tensor

# Of points and of the fused scores, relative to the largest value of the reference (at least 1). Both sides
# read the same inputs and sum in float32, in another order; so half precision needs no more room.
ROUNDING = 3e-6

# Of an engine, whole networks with random weights, the same way. MobileNets carry a difference in the last bit to
# the fourth digit: float32 eager itself is 3e-4 off float64 there, while folding in float64 is 1e-13 off.
ENGINE = {"resnet": 1e-5, "mobilenet": 1e-3}
# On CUDA convolutions may round their inputs to TF32, whose 10 bits are float16's; bfloat16 has 7. On a CPU a small
# ResNet is 2e-3 off in float16 and 2e-2 in bfloat16.
ENGINE_CUDA = {"float32": 1e-2, "float16": 1e-2, "bfloat16": 5e-2}


def assert_landmarks_close(got: Tensor, expected: Tensor, name: str, tolerance: float = ROUNDING) -> None:
    """Same shape and dtype, NaN and infinities in the same places, the rest within the tolerance."""
    got = got.cpu()
    assert got.shape == expected.shape, f"{name}: shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    assert got.dtype == expected.dtype, f"{name}: {got.dtype}, expected {expected.dtype}"
    finite = expected[expected.isfinite()]
    size = max(1.0, float(finite.abs().max())) if finite.numel() else 1.0
    torch.testing.assert_close(
        got, expected, rtol=0, atol=tolerance * size, equal_nan=True, msg=lambda m: f"{name}: {m}"
    )
