"""How a batch is split over the sizes that an engine is prepared for."""


def powers_of_two(batch_size: int) -> tuple[int, ...]:
    """1, 2, 4, ... below ``batch_size``, then ``batch_size`` itself."""
    return (*(1 << i for i in range((batch_size - 1).bit_length())), batch_size)


def one_and(batch_size: int) -> tuple[int, ...]:
    """The sizes of an engine for which every further size costs a compilation."""
    return (1,) if batch_size == 1 else (1, batch_size)


def smallest(sizes: tuple[int, ...], count: int) -> int:
    """The smallest of ascending ``sizes`` that holds ``count``."""
    return next(size for size in sizes if size >= count)


def split(count: int, sizes: tuple[int, ...], pads: bool) -> list[int]:
    """Lengths of the runs that together take ``count`` images.

    Args:
        count: images, at least 1.
        sizes: prepared sizes, ascending from 1.
        pads: True, what is left after runs of the largest size is one run, to be filled up: right where a run's
            time hardly grows with its size (GPUs). False, every run has a prepared size: right where it grows
            in proportion (CPUs).
    """
    largest = sizes[-1]
    runs, rest = [largest] * (count // largest), count % largest
    if pads:
        return runs + [rest] * (rest > 0)
    for size in reversed(sizes[:-1]):
        runs += [size] * (rest // size)
        rest %= size
    return runs
