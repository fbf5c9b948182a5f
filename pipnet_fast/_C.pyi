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

class Plan:
    def __init__(self, address: int, size: int) -> None: ...
    def run(self, bytes: int, planes: int, batch: int, points: int, scores: int, threads: int) -> None: ...
    def run_trunk(self, bytes: int, planes: int, batch: int, features: int, threads: int) -> None: ...
    def step_times(self, bytes: int, planes: int, threads: int) -> list[float]: ...
    @property
    def steps(self) -> list[tuple[str, int, int, int]]: ...
    @property
    def input_size(self) -> int: ...
    @property
    def landmarks(self) -> int: ...
    @property
    def features(self) -> list[int]: ...
    @property
    def weight_bytes(self) -> int: ...
    @property
    def scratch_bytes(self) -> int: ...

def head_loss_forward(
    shape: Sequence[int],
    features: int,
    weights: Sequence[int],
    biases: Sequence[int],
    labels: Sequence[int],
    score: int,
    index: int,
    vote_grad: int,
    terms: Sequence[int],
    threads: int,
) -> None: ...
def head_loss_backward(
    shape: Sequence[int],
    features: int,
    weights: Sequence[int],
    kept: Sequence[int],
    of_terms: Sequence[float],
    weight_grads: Sequence[int],
    bias_grads: Sequence[int],
    feature_grads: int,
    threads: int,
) -> None: ...
def transpose(matrices: int, shape: Sequence[int], out: int, threads: int) -> None: ...
def normalize(crops: int, batch: int, pixels: int, table: int, out: int) -> None: ...
def isas() -> list[str]: ...
def isa() -> str: ...
def pin_workers(cores: Sequence[int]) -> None: ...
def use_isa(name: str) -> None: ...
