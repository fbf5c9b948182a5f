"""Triton kernels compiled for a Hopper GPU, which takes no GPU.

The interpreter runs much that the compiler refuses, and whether tensor cores are used, copies are wide and
registers spill shows in the compiled code only.
"""

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

# Run apart, for this session's kernels may be interpreted ones. The launchers run as they are, on CPU tensors whose
# shapes, strides and alignment decide what is compiled; each launch compiles instead.
SCRIPT = r"""
import json, re, subprocess, tempfile
import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction
from pipnet_fast.kernels import decode, head_decode
from pipnet_fast.kernels.tuning import HALF, SINGLE

class Hopper:
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device: 0)

def facts(kernel):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ptx = kernel.asm["ptx"]
    return dict(
        shared_bytes=kernel.metadata.shared,
        spilled_bytes=sum(map(int, re.findall(r"(?:STACK|LOCAL):(\d+)", usage))),
        products=sorted(set(re.findall(r"(?:wgmma\.mma_async|mma)\.sync\.aligned[\w.:]+", ptx))),
        wide_copies=len(re.findall(r"cp\.async\.cg\.shared\.global.*0x10", ptx)),
    )

def compile_only(function, *args, grid, warmup, **options):
    kernel = run(function, *args, grid=grid, warmup=True, **options)
    if kernel.hash not in known:
        known[kernel.hash] = facts(kernel)
    print(json.dumps(dict(case, kernel=function.__name__, **known[kernel.hash])))
    return kernel

known, run, JITFunction.run = {}, JITFunction.run, compile_only
driver.set_active(Hopper())

def table(n, votes):
    return torch.empty(n + 1, dtype=torch.int32), torch.empty(votes, dtype=torch.int32), torch.empty(votes)

def compile_head(name, x, n, k):
    global case
    case = dict(name=name, dtype=str(x.dtype).removeprefix("torch."), batch=len(x))
    sizes = (n, x.shape[1], 1), (n,), (n, 2 + 2 * k, x.shape[1]), (n, 2 + 2 * k)
    head = (torch.empty(size, dtype=x.dtype) for size in sizes)
    head_decode(x, *head, *table(n, n * (1 + k)), torch.empty(len(x), n, 2), torch.empty(len(x), n))

def compile_decode(b, n, k, dtype):
    global case
    case = dict(name="decode", dtype=str(dtype).removeprefix("torch."), batch=b)
    maps = [torch.empty(b, rows, 8, 8, dtype=dtype) for rows in (n, n, n, n * k, n * k)]
    decode(maps, *table(n, n * (1 + k)), torch.empty(b, n, 2), torch.empty(b, n))

for dtype in (torch.float32, torch.float16, torch.bfloat16):
    def empty(*size):
        return torch.empty(size, dtype=dtype)
    def channels_last(*size):
        return empty(*size).contiguous(memory_format=torch.channels_last)
    for least, _ in SINGLE if dtype == torch.float32 else HALF:
        compile_head("tuned", channels_last(max(1, -(-least // 64)), 512, 8, 8), 98, 10)
    for k in (0, 10):
        compile_decode(2, 98, k, dtype)
    if dtype != torch.bfloat16:
        compile_head("contiguous", empty(1, 512, 8, 8), 98, 10)
        compile_head("sliced", empty(1, 512, 8, 11)[..., :8], 98, 10)
        for b in (1, 256):
            compile_head("aflw19", channels_last(b, 96, 16, 16), 19, 18)
            compile_head("odd", channels_last(b, 33, 5, 3), 5, 3)
            compile_head("mesh", channels_last(b, 1280, 4, 4), 478, 40)
"""

# Of a block on Hopper, as the driver reports it.
MOST_SHARED_BYTES = 227 * 1024


@pytest.fixture(scope="module")
def launches() -> list[dict[str, Any]]:
    """What was compiled, one entry for each launch of each case."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_kernels_compile_for_hopper(launches: list[dict[str, Any]]) -> None:
    kernels = {launch["kernel"] for launch in launches}
    assert kernels == {
        "_decode_votes_kernel",
        "_head_decode_latency_kernel",
        "_head_decode_scores_kernel",
        "_head_decode_votes_kernel",
        "_merge_kernel",
    }
    assert {launch["dtype"] for launch in launches} == {"float32", "float16", "bfloat16"}


def test_shared_memory_and_registers_suffice(launches: list[dict[str, Any]]) -> None:
    for launch in launches:
        assert launch["shared_bytes"] <= MOST_SHARED_BYTES, launch
        # Where rows of the grid have gaps, or channels do not fill 16 bytes, addresses take too many registers.
        if launch["name"] not in ("odd", "sliced"):
            assert launch["spilled_bytes"] == 0, launch


def test_one_image_takes_two_kernels_and_a_batch_three(launches: list[dict[str, Any]]) -> None:
    tuned = [launch for launch in launches if launch["name"] == "tuned"]
    for dtype in ("float32", "float16", "bfloat16"):
        kernels = {
            batch: [t["kernel"] for t in tuned if t["dtype"] == dtype and t["batch"] == batch]
            for batch in {t["batch"] for t in tuned}
        }
        assert kernels.pop(1) == ["_head_decode_latency_kernel", "_merge_kernel"]
        batched = ["_head_decode_scores_kernel", "_head_decode_votes_kernel", "_merge_kernel"]
        assert all(names == batched for names in kernels.values()), kernels


def test_half_precision_batches_use_tensor_cores(launches: list[dict[str, Any]]) -> None:
    short = {"float16": "f16", "bfloat16": "bf16"}
    products = [p for p in launches if p["kernel"] in ("_head_decode_scores_kernel", "_head_decode_votes_kernel")]
    half = [p for p in products if p["dtype"] in short]
    assert half
    for product in half:
        assert product["products"], product
        # Sums in float32, of operands as they are.
        operand = short[product["dtype"]]
        assert all(f".f32.{operand}.{operand}" in name for name in product["products"]), product
    largest = [p for p in half if p["name"] == "tuned" and p["batch"] >= 128]
    assert len(largest) == 4
    assert all(name.startswith("wgmma") for p in largest for name in p["products"]), largest


def test_float32_uses_no_tensor_cores(launches: list[dict[str, Any]]) -> None:
    # They would round its operands to TF32, and flip winners.
    single = [launch for launch in launches if launch["dtype"] == "float32"]
    assert single
    assert not any(launch["products"] for launch in single)


def test_tiles_are_copied_16_bytes_at_a_time(launches: list[dict[str, Any]]) -> None:
    copying = [p for p in launches if p["kernel"].startswith("_head_decode") and p["name"] in ("tuned", "contiguous")]
    assert copying
    assert all(p["wide_copies"] > 0 for p in copying), copying
