"""Tests that take too long for every run."""

import os

import pytest

SKIPPED = os.environ.get("PIPNET_SLOW") != "1"


def reason(why: str) -> str:
    return f"{why}; PIPNET_SLOW=1 runs it"


def slow(why: str) -> pytest.MarkDecorator:
    """Marks a test, or one of its parameters, to be skipped unless it is asked for."""
    return pytest.mark.skipif(SKIPPED, reason=reason(why))
