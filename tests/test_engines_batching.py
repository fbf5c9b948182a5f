"""Splitting batches over prepared sizes."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from pipnet_fast.engines.batching import one_and, powers_of_two, smallest, split


def test_sizes() -> None:
    assert [powers_of_two(b) for b in (1, 2, 3, 8, 9)] == [(1,), (1, 2), (1, 2, 3), (1, 2, 4, 8), (1, 2, 4, 8, 9)]
    assert [one_and(b) for b in (1, 2, 7)] == [(1,), (1, 2), (1, 7)]
    assert [smallest((1, 2, 4, 9), count) for count in (1, 2, 3, 4, 5, 9)] == [1, 2, 4, 4, 9, 9]
    assert split(13, (1, 2, 4, 5), pads=True) == [5, 5, 3]
    assert split(13, (1, 2, 4, 5), pads=False) == [5, 5, 2, 1]
    assert split(13, (1, 5), pads=False) == [5, 5, 1, 1, 1]


@given(count=st.integers(1, 600), batch_size=st.integers(1, 64), sizes=st.sampled_from([powers_of_two, one_and]))
def test_runs_cover_the_batch(count: int, batch_size: int, sizes: Callable[[int], tuple[int, ...]]) -> None:
    prepared = sizes(batch_size)
    exact, padded = split(count, prepared, pads=False), split(count, prepared, pads=True)
    assert sum(exact) == sum(padded) == count
    assert set(exact) <= set(prepared)
    assert all(1 <= run <= batch_size for run in padded)
    assert len(padded) == -(-count // batch_size)
