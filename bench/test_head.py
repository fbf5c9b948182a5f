"""Head and decoding under pytest-benchmark: ``pytest bench/test_head.py``; its options compare runs and draw them."""

from typing import Any

import pytest
import torch

from bench.head import BASE, Head, check
from bench.timing import Call

HEAD = Head(BASE, "cpu", torch.float32)
SUBJECTS = dict(HEAD.on_cpu(every_isa=True))


@pytest.mark.parametrize(("name", "call"), SUBJECTS.items(), ids=SUBJECTS)
@torch.inference_mode()
def test_head(name: str, call: Call, benchmark: Any) -> None:
    """One thread, for a thread pool and pytest-benchmark's short rounds do not go together."""
    torch.set_num_threads(1)
    check(name, call(), HEAD.expected(name), "float32")
    benchmark(call)
