"""Rounds of self-training: train, label what has no labels, train on both; whatever is done already is kept."""

import csv
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pipnet_fast.crop import CropRule
from pipnet_fast.data import DataError, FaceData
from pipnet_fast.data._optional import import_optional
from pipnet_fast.data.mean_face import warn_of_disagreement
from pipnet_fast.models import LandmarkModel, PIPNet, load, save
from pipnet_fast.selftrain.config import SelfTrainConfig, UnlabelledConfig
from pipnet_fast.selftrain.detect import read_boxes, write_boxes
from pipnet_fast.selftrain.faces import as_crops, has_boxes, joined, open_unlabelled
from pipnet_fast.selftrain.labels import label_statistics, read_labels, write_labels
from pipnet_fast.selftrain.objectives import DomainLoss, TaskLoss
from pipnet_fast.selftrain.tasks import Task
from pipnet_fast.train.checkpoint import write_atomically
from pipnet_fast.train.config import TrainConfig
from pipnet_fast.train.distributed import World, join
from pipnet_fast.train.log import Row, require_matplotlib, write_table
from pipnet_fast.train.loop import CONFIG, FINAL, Recipe, Run, TrainError, settings, supervised
from pipnet_fast.train.objective import Objective
from pipnet_fast.train.setup import Faces, create_model, load_faces, model_crop

TABLE = "rounds.csv"


class SelfTrainResult(NamedTuple):
    """What a run of self-training has written."""

    folder: Path
    """With config.toml, rounds.csv and a training run for every round."""
    final: Path
    """The model after the last round, for ``pf.load``."""
    rounds: list[Row]
    """The rows of rounds.csv: number and task, the faces learned from, the last epoch of the training."""


def selftrain(config: SelfTrainConfig, *, resume: bool = False) -> SelfTrainResult:
    """Train on labelled and unlabelled faces (section 3.3); under torchrun, in every process.

    The supervised round trains on the labels. Each further round labels the unlabelled faces by the last round's
    model, and trains a network on both, on the unlabelled ones by the task of the round.

    What a run has written is kept, epoch by epoch of training and file by file of pseudo-labels: a run that was ended,
    by whatever, and resumed ends as if it had never stopped.

    Args:
        config: what to train, on what, and where to write.
        resume: go on with the run in the folder, or begin if there is none yet.

    Raises:
        ValueError: a configuration that does not fit the data or the machine, or is another than that of the run to
            resume; a folder that has a run in it already.
        DataError: labels that are missing or damaged, or an unlabelled set without a face.
        TrainError: what ended the training of a round, and its last good checkpoint; or a model whose predictions are
            not finite.
        ImportError: pyarrow or matplotlib is missing.
    """
    if not config.system.out:
        raise ValueError("system.out: expected a folder for what is written, got none; set it")
    require_matplotlib()
    if config.selftrain.sequence():
        import_optional("pyarrow", "selftrain: tables of pseudo-labels", "selftrain")
    with join(config.system.device) as world, settings(config.system, world):
        return SelfTraining(config, world, resume).to_the_end()


class SelfTraining:
    """A run in progress; how far it is, the folder tells."""

    def __init__(self, config: SelfTrainConfig, world: World, resume: bool) -> None:
        """Hold the folder's configuration against this one, and read the labels."""
        self.config, self.world = config, world
        self.folder = Path(config.system.out)
        self._check_folder(resume)
        self.faces = load_faces(config.data)
        # All have looked before one writes.
        world.barrier()
        if world.is_main:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / CONFIG, lambda file: file.write(config.to_toml().encode()))

    def to_the_end(self) -> SelfTrainResult:
        """Do the rounds that are left, all of them if none is there."""
        labelled, tasks = len(self.faces.train), self.config.selftrain.sequence()
        # Before the first training: a folder that is not there should not end the run hours later.
        pictures = [self._pictures(*numbered) for numbered in enumerate(self.config.unlabelled)] if tasks else []
        model = self._supervised()
        rows = [self._row(0, "supervised", labelled=labelled)]
        self._write(rows)
        for number, task in enumerate(tasks, start=1):
            others = self._labels(number, model, pictures) if task.labels else pictures
            if number == 1:
                self._warn(others)
            model = self._train(number, task, model, others)
            row = self._row(
                number, task.name, labelled=labelled, unlabelled=sum(map(len, pictures)), kept=sum(map(len, others))
            )
            rows.append(row)
            self._write(rows)
        if self.world.is_main:
            save(model, self.folder / FINAL)
        return SelfTrainResult(self.folder, self.folder / FINAL, rows)

    def _write(self, rows: Sequence[Row]) -> None:
        if self.world.is_main:
            write_table(self.folder / TABLE, rows)

    def _supervised(self) -> LandmarkModel:
        """The model of round 0, given or trained."""
        given = self.config.selftrain.supervised
        if given is None:
            config = self.config.round_config(0, str(self._round_folder(0, "supervised")))
            return self._trained(config, self.faces, supervised(config, self.faces))
        model = load(given)
        wanted = create_model(self.config.model, self.faces.train, pretrained=False)
        if model.config != wanted.config:
            raise ValueError(f"selftrain.supervised: {given}: expected a model of {wanted.config}, got {model.config}")
        return model.to(self.world.device)

    def _pictures(self, number: int, config: UnlabelledConfig) -> FaceData:
        """A set without labels, in crops like those of the labelled one."""
        data = open_unlabelled(config, self.faces.train.layout, skip_bad=True)
        return data if has_boxes(data) else self._detected(number, config, data)

    def _detected(self, number: int, config: UnlabelledConfig, data: FaceData) -> FaceData:
        """The faces that a detector finds in pictures."""
        if given := sorted({"scale", "top_shift"} & set(config.options)):
            raise ValueError(
                f"unlabelled[{number}].options: {', '.join(given)}: expected none where a detector finds the faces; "
                f"those of {data.name} are cropped as the labelled ones, or by crop_scale and top_shift of the set"
            )
        folder = self.folder / f"boxes-{number}"
        write_boxes(data, config.detector, folder, skip_bad=True, world=self.world)
        faces = read_boxes(data, folder)
        if not len(faces):
            raise DataError(
                f"{data.name}: expected faces to learn from, found none by detector {config.detector!r} in {len(data)} "
                f"picture(s), {len(faces.bad) - len(data.bad)} of them unreadable"
            )
        given_rule = None if config.crop_scale is None else CropRule(config.crop_scale, config.top_shift)
        return as_crops(replace(faces, crop=given_rule or model_crop(self.faces.train)))

    def _labels(self, number: int, model: LandmarkModel, pictures: Sequence[FaceData]) -> list[FaceData]:
        """The sets with a model's landmarks, those that its filters keep."""
        options, found = self.config.selftrain, []
        for position, data in enumerate(pictures):
            folder = self._labels_folder(number) / str(position)
            try:
                write_labels(
                    model,
                    data,
                    folder,
                    disagreement=options.max_disagreement is not None,
                    batch_size=options.label_batch,
                    shard_size=options.shard_faces,
                    workers=self.config.data.workers,
                    skip_bad=True,
                    world=self.world,
                )
            except FloatingPointError as error:
                raise TrainError(f"round {number}: {error}") from None
            kept = read_labels(data, folder, min_score=options.min_score, max_disagreement=options.max_disagreement)
            found.append(kept)
        if not any(map(len, found)):
            raise ValueError(
                f"selftrain.min_score, max_disagreement: none of {sum(map(len, pictures))} faces is kept; see the "
                f"scores in {self._labels_folder(number)}, and relax them"
            )
        return found

    def _train(self, number: int, task: Task, previous: LandmarkModel, others: Sequence[FaceData]) -> LandmarkModel:
        """The model of a round."""
        config = self.config.round_config(number, str(self._round_folder(number, task.name)))
        options, labelled = self.config.selftrain, self.faces.train
        if not task.labels:
            # Of pictures that get labels those are known by now that cannot be read.
            config = replace(config, data=replace(config.data, skip_bad=True))

        def create(begins: bool) -> LandmarkModel:
            model = create_model(config.model, labelled, pretrained=begins and options.restart)
            if begins and not options.restart:
                model.load_state_dict(previous.state_dict())
            return model

        def objective(model: LandmarkModel) -> Objective:
            assert isinstance(model, PIPNet)
            if task.labels:
                return TaskLoss(model, config.optimization, len(labelled), task, options.score_mean)
            return DomainLoss(model, config.optimization, len(labelled), options.domain_weight)

        faces = Faces(joined(labelled, others), self.faces.val)
        return self._trained(config, faces, Recipe(create, objective))

    def _trained(self, config: TrainConfig, faces: Faces, recipe: Recipe) -> LandmarkModel:
        """The model of a training run that is whole already, or made so now."""
        final = Path(config.system.out, FINAL)
        if not final.is_file():
            Run(config, faces, self.world, True, recipe).to_the_end()
            self.world.barrier()
        return load(final).to(self.world.device)

    def _warn(self, others: Sequence[FaceData]) -> None:
        """Tell of sets that are cropped in another way than the labelled one, by what the first model finds in them."""
        if self.world.is_main:
            for message in warn_of_disagreement([as_crops(self.faces.train), *others]):
                print(f"warning: {message}", file=sys.stderr)

    def _row(self, number: int, task: str, **faces: int) -> Row:
        """What there is to tell of a round that has ended."""
        row = {"round": number, "task": task, **faces}
        if (labels := self._labels_folder(number)).is_dir():
            statistics = [label_statistics(folder) for folder in sorted(labels.iterdir())]
            counts = [s.faces - s.unreadable for s in statistics]
            means = [s.mean_score * count for s, count in zip(statistics, counts, strict=True) if count]
            row["mean_score"] = sum(means) / sum(counts) if means else math.nan
        log = self._round_folder(number, task) / "log.csv"
        if log.is_file():
            with open(log, newline="", encoding="utf-8") as file:
                *_, last = csv.DictReader(file)
            row |= {name: float(last[name]) for name in ("loss", "val_nme") if last.get(name)}
        return row

    def _round_folder(self, number: int, task: str) -> Path:
        return self.folder / f"{number}-{task}"

    def _labels_folder(self, number: int) -> Path:
        return self.folder / f"{number}-labels"

    def _check_folder(self, resume: bool) -> None:
        """See that the folder has this run or none.

        Raises:
            ValueError: one that is not asked for, or another.
        """
        path = self.folder / CONFIG
        if not path.is_file():
            return
        if not resume:
            raise ValueError(
                f"system.out: {self.folder} holds a run already; resume it (--resume), or take another folder"
            )
        if differing := SelfTrainConfig.from_toml(path).differences(self.config):
            raise ValueError(f"resume: {path} is of another run: {'; '.join(differing)}")
