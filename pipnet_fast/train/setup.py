"""What a run starts from: the faces of a configuration, the network that fits them, batches."""

from dataclasses import replace
from typing import Any, NamedTuple

from pipnet_fast.crop import CropRule
from pipnet_fast.data import FaceData, open_data
from pipnet_fast.data.augment import Augmentation
from pipnet_fast.data.loader import CropLoader
from pipnet_fast.data.samples import blackened
from pipnet_fast.models import LandmarkModel
from pipnet_fast.models._assembly import KINDS
from pipnet_fast.train.config import DataConfig, ModelConfig, TrainConfig
from pipnet_fast.train.distributed import World


class Faces(NamedTuple):
    """What is learned from."""

    train: FaceData
    val: FaceData | None


def load_faces(config: DataConfig) -> Faces:
    """Read the labels.

    Raises:
        ValueError, DataError: as ``open_data``; no labelled face.
    """
    faces = Faces(_load(config, config.split), None if config.val_split is None else _load(config, config.val_split))
    if not len(faces.train):
        raise ValueError(f"{faces.train.name}: expected labelled faces to train on, got none")
    if faces.val is not None and not len(faces.val):
        raise ValueError(f"{faces.val.name}: expected labelled faces to validate on, got none")
    return faces


def _load(config: DataConfig, split: str) -> FaceData:
    data = open_data(config.dataset, config.root, split, skip_bad=config.skip_bad, **config.options)
    data = replace(data, samples=[sample for sample in data.samples if sample.landmarks is not None])
    if config.crop_scale is not None:
        data = data.with_tight_boxes(CropRule(config.crop_scale, config.top_shift))
    return blackened(data) if config.black else data


def model_crop(data: FaceData) -> CropRule:
    """How a model that is trained on this data is to crop by tight boxes: ``FaceData.tight_rule``.

    Raises:
        ValueError: boxes that have nothing to do with the faces.
    """
    try:
        return data.tight_rule()
    except ValueError as error:
        raise ValueError(f"{error}; set crop_scale to train on crops that follow from tight boxes") from None


def create_model(config: ModelConfig, data: FaceData, *, pretrained: bool) -> LandmarkModel:
    """The network for a data set; its neighbors are those of the mean shape of the crops.

    ``pretrained`` is False where weights come from a checkpoint and ImageNet's need not be there.

    Raises:
        ValueError: a value that the network does not have.
        RuntimeError: ImageNet weights that could not be downloaded.
    """
    kind = KINDS[config.kind]
    values: dict[str, Any] = {
        name: getattr(config, name) for name in kind.entries - {"num_landmarks"} if getattr(config, name) is not None
    }
    if config.kind == "pipnet":
        values["mean_shape"] = config.mean_shape or data.mean_shape()
    cls: Any = kind.model
    model: LandmarkModel = cls(
        num_landmarks=data.layout.num_landmarks,
        weights=config.weights if pretrained else None,
        crop=model_crop(data),
        **values,
    )
    return model


def create_loader(config: TrainConfig, data: FaceData, world: World) -> CropLoader:
    """This process' slices of the batches.

    Raises:
        ValueError: batches that cannot be shared out, or are larger than the data set; augmentation out of its range.
    """
    batch_size, accumulate = config.optimization.batch_size, config.optimization.accumulate
    parts = world.size * accumulate
    if batch_size % parts:
        raise ValueError(
            f"optimization.batch_size: {batch_size} faces do not divide into {parts} equal parts, for {world.size} "
            f"process(es) and accumulate = {accumulate}; take a multiple of {parts}"
        )
    if batch_size > len(data):
        raise ValueError(
            f"optimization.batch_size: {data.name} has {len(data)} face(s), less than a batch of {batch_size}; take a "
            "smaller one"
        )
    return CropLoader(
        data,
        data.crop,
        config.model.input_size,
        batch_size // world.size,
        augmentation=Augmentation(**config.data.augmentation) if config.data.augment else None,
        shuffle=True,
        seed=config.system.seed,
        workers=config.data.workers,
        rank=world.rank,
        world_size=world.size,
        drop_last=True,
        skip_bad=config.data.skip_bad,
        cache_mb=config.data.cache_mb,
    )
