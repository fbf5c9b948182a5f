"""Triton kernels compiled for a Hopper GPU: the interpreter runs much that the compiler refuses."""

import importlib.util
import os
import subprocess
import sys

import pytest

# Run apart, for this session's kernels may be interpreted ones.
SCRIPT = """
import importlib, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

def compile_kernel(module, kernel, constants, dtype, integers=()):
    function = getattr(importlib.import_module(f"pipnet_fast.kernels.{module}"), kernel)
    def type_of(name):
        if name in constants:
            return "constexpr"
        if name in integers:
            return "*i32"
        if not name.endswith("_ptr"):
            return "i32"
        return "*fp32" if name in ("votes_ptr", "scores_ptr", "points_ptr", "weights_ptr") else f"*{dtype}"
    signature = {name: type_of(name) for name in function.arg_names}
    index = function.arg_names.index
    source = ASTSource(function, signature, {(index(name),): value for name, value in constants.items()})
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert len(compiled.asm["cubin"]) > 0
    print("compiled", module, dtype, constants)

for dtype in ("fp32", "fp16", "bf16"):
    for rows in (2, 22):
        compile_kernel("head_decode", "_head_decode_votes_kernel",
                       dict(R=rows, PANEL=1, BLOCK_S=64, BLOCK_C=64, BLOCK_R=32), dtype)
    for neighbors in (0, 10):
        compile_kernel("decode", "_decode_votes_kernel", dict(K=neighbors, BLOCK_S=64, BLOCK_K=16), dtype)
compile_kernel("merge", "_merge_kernel", dict(ROW=128), "fp32", ("starts_ptr", "sources_ptr"))
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_kernels_compile_for_hopper() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("compiled") == 13
