from collections.abc import Sequence

def decode(
    maps: Sequence[int],
    strides: Sequence[Sequence[int]],
    shape: Sequence[int],
    table: Sequence[int],
    points: int,
    scores: int,
    threads: int,
) -> None: ...

class Head:
    def __init__(self, shape: Sequence[int], storage: str, packed: Sequence[int]) -> None: ...
    def decode(
        self,
        features: int,
        shape: Sequence[int],
        strides: Sequence[int],
        points: int,
        scores: int,
        threads: int,
    ) -> None: ...

def normalize(crops: int, batch: int, pixels: int, table: int, out: int) -> None: ...
def isas() -> list[str]: ...
def isa() -> str: ...
def use_isa(name: str) -> None: ...
