"""What a training run is: four groups of settings, checked when they are made, to and from TOML.

The fields are the flags of ``pipnet-fast train`` and the entries of its TOML files; defaults are the paper's section
4.1.2, and where it is silent the official code's.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pipnet_fast.backbones import BACKBONES
from pipnet_fast.data import Augmentation
from pipnet_fast.neighbors import Merge
from pipnet_fast.train import _toml
from pipnet_fast.train._fields import MAY_CHANGE, check_types, fields_of

if TYPE_CHECKING:
    from typing_extensions import Self

Precision = Literal["float32", "bfloat16", "float16"]
# Input pixels per cell, for those kinds that have a choice; the first is the paper's.
STRIDES = {"pipnet": (32, 16, 64, 128), "mapnet": (2, 4, 1)}


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    kind: Annotated[Literal["pipnet", "coordnet", "mapnet", "grmi"], "detection head"] = "pipnet"
    backbone: Annotated[str, f"one of {', '.join(BACKBONES)}"] = "resnet18"
    width: Annotated[float, "channel multiplier of a ResNet"] = 1.0
    weights: Annotated[str | None, '"imagenet" or the path of ImageNet weights to start from'] = None
    input_size: Annotated[int, "side of the crop, px"] = 256
    stride: Annotated[int | None, "input px per cell; PIPNet 16, 32, 64, 128, MapNet 1, 2, 4; by default 32 and 2"] = (
        None
    )
    num_neighbors: Annotated[int, "neighbors per landmark (the paper's C), 0 for PIPNet without NRM"] = 10
    merge: Annotated[Merge, "how PIPNet merges its neighbors' votes"] = "mean"
    radius_px: Annotated[float, "radius of G-RMI's disks, px"] = 15.0
    mean_shape: Annotated[
        str | None, "layout or meanface file that defines PIPNet's neighbors, in place of the data's"
    ] = None

    def __post_init__(self) -> None:
        """Check what can be checked without building the network."""
        check_types("model", self)
        strides = STRIDES.get(self.kind, ())
        expect("model.backbone", self.backbone, self.backbone in BACKBONES, f"one of {', '.join(BACKBONES)}")
        choice = f"one of {sorted(strides)}" if strides else "none"
        expect("model.stride", self.stride, self.stride in (None, *strides), f"{choice} for {self.kind}")
        expect("model.num_neighbors", self.num_neighbors, self.num_neighbors >= 0, "0 or more")
        if self.weights is not None and self.width != 1:
            raise ValueError(
                f"model.weights: ImageNet weights are of width 1, got width = {self.width}; leave weights out, or set "
                "width = 1.0"
            )


@dataclass(frozen=True)
class DataConfig:
    """The faces."""

    dataset: Annotated[str, "300w, cofw, wflw, aflw19 ..., or table for one's own"] = "table"
    root: Annotated[str, "folder that it was unpacked to", MAY_CHANGE] = ""
    split: Annotated[str, "what is trained on"] = "train"
    val_split: Annotated[str | None, "what is validated on; without it there is no best.safetensors"] = None
    options: Annotated[dict[str, Any], "of the reader, as boxes=tight"] = field(default_factory=dict)
    crop_scale: Annotated[
        float | None, "crop the labels' tight boxes grown so much, in place of the data's own boxes"
    ] = None
    top_shift: Annotated[float, "share of the tight box's height that crop_scale's crops lack at the top"] = 0.0
    augment: Annotated[bool, "augmentation as in the paper"] = True
    augmentation: Annotated[dict[str, Any], "other values of it, as rotation_deg=20"] = field(default_factory=dict)
    black: Annotated[
        bool, "black pictures in the place of the images: what positions alone teach, as the paper's section 3.4 has it"
    ] = False
    skip_bad: Annotated[bool, "leave out faces whose files are missing or damaged", MAY_CHANGE] = False
    workers: Annotated[int, "processes that read and crop; 0 for none", MAY_CHANGE] = 2
    cache_mb: Annotated[
        int, "MiB for decoded faces that are kept over the epochs, with workers taken at once; 0: none", MAY_CHANGE
    ] = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_types("data", self)
        for name in ("workers", "cache_mb"):
            expect(f"data.{name}", getattr(self, name), getattr(self, name) >= 0, "0 or more")
        if self.top_shift and self.crop_scale is None:
            raise ValueError("data.top_shift: shifts the crops of crop_scale; set crop_scale too")
        known = [field.name for field in fields(Augmentation)]
        for name in self.augmentation:
            expect("data.augmentation", name, name in known, f"names of {', '.join(known)}")
        try:
            Augmentation(**self.augmentation)
        except (TypeError, ValueError) as error:
            raise ValueError(f"data.augmentation: {error}") from None
        if self.augmentation and not self.augment:
            raise ValueError("data.augmentation: has values though augment = false; set augment = true, or drop them")


@dataclass(frozen=True)
class OptimizationConfig:
    """How the weights are found."""

    epochs: Annotated[int, "passes over the data"] = 60
    batch_size: Annotated[int, "faces per step, over all processes"] = 16
    accumulate: Annotated[int, "parts that each process does its share of a batch in, one after the other"] = 1
    optimizer: Annotated[Literal["adam", "adamw"], "adamw spares biases and BatchNorm from weight decay"] = "adam"
    learning_rate: Annotated[float, "highest learning rate"] = 1e-4
    weight_decay: Annotated[float | None, "by default 0 from ImageNet weights, else 5e-4, as the official code"] = None
    schedule: Annotated[Literal["step", "cosine", "onecycle", "constant"], "course of the learning rate"] = "step"
    decay_epochs: Annotated[tuple[int, ...], "epochs after which step multiplies it by decay_factor"] = (30, 50)
    decay_factor: Annotated[float, "see decay_epochs"] = 0.1
    warmup_epochs: Annotated[float, "epochs in which it rises from next to nothing"] = 0.0
    alpha: Annotated[
        float | None, "weight of PIPNet's offset term; by default twice the paper's, as the official code"
    ] = None
    beta: Annotated[float | None, "weight of PIPNet's neighbor term, likewise"] = None
    ema: Annotated[
        float, "decay of the moving average of the weights that is evaluated and saved, as 0.999; 0: none"
    ] = 0.0
    clip_norm: Annotated[float, "largest norm of the gradient; 0: any"] = 0.0
    precision: Annotated[Precision, "of the network's arithmetic; float16 and bfloat16 are mixed"] = "float32"
    channels_last: Annotated[bool, "memory layout of maps, faster on most devices"] = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_types("optimization", self)
        for name in ("epochs", "batch_size", "accumulate"):
            expect(f"optimization.{name}", getattr(self, name), getattr(self, name) >= 1, "1 or more")
        for name in ("alpha", "beta", "weight_decay", "clip_norm"):
            value = getattr(self, name)
            expect(f"optimization.{name}", value, value is None or 0 <= value < float("inf"), "a number >= 0")
        expect("optimization.learning_rate", self.learning_rate, 0 < self.learning_rate < 10, "a number > 0 and < 10")
        expect("optimization.ema", self.ema, 0 <= self.ema < 1, "0 <= ema < 1")
        expect("optimization.decay_factor", self.decay_factor, 0 < self.decay_factor <= 1, "0 < decay_factor <= 1")
        warmup = self.warmup_epochs
        expect(
            "optimization.warmup_epochs",
            warmup,
            0 <= warmup < self.epochs,
            f"0 or more and below epochs = {self.epochs}",
        )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"optimization.accumulate: {self.accumulate} parts do not divide batch_size = {self.batch_size}; "
                "change either"
            )
        if self.schedule == "onecycle" and not warmup:
            raise ValueError(
                "optimization.warmup_epochs: the first part of onecycle is its rise; set it, usually to "
                f"{0.3 * self.epochs:g}, three tenths of epochs"
            )
        decays = self.decay_epochs
        if self.schedule == "step" and (list(decays) != sorted(set(decays)) or any(e < 1 for e in decays)):
            raise ValueError(f"optimization.decay_epochs: expected increasing epochs, got {list(decays)}")


@dataclass(frozen=True)
class SystemConfig:
    """Where it runs."""

    out: Annotated[str, "folder for what is written, made if need be", MAY_CHANGE] = ""
    device: Annotated[str, "auto, cpu, cuda, cuda:1 ...; with torchrun each process takes its own", MAY_CHANGE] = "auto"
    seed: Annotated[int, "of initialization, order and augmentation"] = 0
    threads: Annotated[int, "of torch on the CPU; 0: as it is", MAY_CHANGE] = 0
    deterministic: Annotated[
        bool, "the same bits each time on the same machine, somewhat slower on CUDA", MAY_CHANGE
    ] = True
    eval_every: Annotated[int, "epochs from one validation to the next"] = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_types("system", self)
        expect("system.seed", self.seed, 0 <= self.seed < 2**32, "0 <= seed < 2^32")
        expect("system.threads", self.threads, self.threads >= 0, "0 or more")
        expect("system.eval_every", self.eval_every, self.eval_every >= 1, "1 or more")


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Contradictions raise ValueError, with what to do about them."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    system: SystemConfig = field(default_factory=SystemConfig)

    def __post_init__(self) -> None:
        """Check what concerns several groups."""
        optimization = self.optimization
        if self.model.kind != "pipnet" and (optimization.alpha, optimization.beta) != (None, None):
            raise ValueError(f"optimization.alpha, beta: weigh PIPNet's terms; leave them out for {self.model.kind}")

    @classmethod
    def groups(cls) -> dict[str, Any]:
        """The class of each group by its name."""
        return {f.name: f.default_factory for f in fields(cls)}

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any]) -> "Self":
        """From tables of groups, as a TOML file has them; what is left out has its default.

        Raises:
            ValueError: an unknown table or entry, or a bad value.
        """
        return cls(**read_groups(cls.groups(), tables))

    @classmethod
    def from_toml(cls, path: str | Path) -> "Self":
        """Read a file.

        Raises:
            ValueError: not TOML, or as for ``from_dict``; the message names the file.
            OSError: no readable file.
        """
        tables = _toml.read(Path(path))
        try:
            return cls.from_dict(tables)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values, as ``from_dict`` takes them."""
        return asdict(self)

    def to_toml(self) -> str:
        """The text of a file that ``from_toml`` reads."""
        return _toml.write(self.to_dict())

    def differences(self, other: "Self") -> list[str]:
        """Fields in which the other run would give another result: ``"optimization.epochs: 60, not 30"``."""
        return [
            difference
            for name, group in self.groups().items()
            for difference in group_differences(name, group, getattr(self, name), getattr(other, name))
        ]


def read_groups(groups: Mapping[str, Any], tables: Mapping[str, Any]) -> dict[str, Any]:
    """Groups from tables of their names.

    Raises:
        ValueError: an unknown table, or as for ``read_group``.
    """
    unknown = set(tables) - set(groups)
    if unknown:
        raise ValueError(f"[{sorted(unknown)[0]}]: expected the tables {', '.join(groups)}")
    return {name: read_group(name, group, tables.get(name, {})) for name, group in groups.items()}


def read_group(name: str, group: Any, values: Any) -> Any:
    """A group from the entries of its table.

    Raises:
        ValueError: no table, an unknown entry, or a bad value.
    """
    known = [f.name for f in fields_of(group)]
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}: expected a table, got {values!r}")
    wrong = sorted(set(values) - set(known))
    if wrong:
        raise ValueError(f"{name}.{wrong[0]}: unknown; [{name}] has {', '.join(known)}")
    return group(**values)


def group_differences(name: str, group: Any, ours: Any, theirs: Any) -> list[str]:
    """See ``TrainConfig.differences``."""
    return [
        f"{name}.{f.name}: {getattr(theirs, f.name)!r}, not {getattr(ours, f.name)!r}"
        for f in fields_of(group)
        if not f.may_change and getattr(ours, f.name) != getattr(theirs, f.name)
    ]


def expect(name: str, value: Any, holds: bool, expected: str) -> None:
    """Raise a ValueError about an entry unless its condition holds."""
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
