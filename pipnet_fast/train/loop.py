"""The training loop, one for all kinds of models: load, set up, train, validate, save."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipnet_fast.data.digest import face_digest
from pipnet_fast.models import LandmarkModel, save
from pipnet_fast.train import validation
from pipnet_fast.train.checkpoint import read_checkpoint, write_atomically, write_checkpoint
from pipnet_fast.train.config import SystemConfig, TrainConfig
from pipnet_fast.train.distributed import World, join
from pipnet_fast.train.learner import Learner
from pipnet_fast.train.log import Log, Progress, Row, require_matplotlib
from pipnet_fast.train.objective import Objective
from pipnet_fast.train.optimization import learning_rate
from pipnet_fast.train.setup import Faces, create_loader, create_model, load_faces

CONFIG, LAST, BEST, FINAL = "config.toml", "last.pt", "best.safetensors", "final.safetensors"
# On CUDA looking at the loss makes the device wait, so it is looked at only so often.
STEPS_BETWEEN_LOOKS = {"cpu": 1, "cuda": 50}


class TrainError(RuntimeError):
    """What ended a run, and its last good checkpoint."""


class TrainResult(NamedTuple):
    """What a run has written."""

    folder: Path
    """With config.toml, log.csv, curves.png and last.pt, from which it can be resumed."""
    final: Path
    """The model after the last epoch, for ``pf.load``."""
    best: Path | None
    """The model with the smallest validation error; None if there was no validation."""
    history: list[Row]
    """The rows of log.csv."""


@dataclass(frozen=True)
class Recipe:
    """In what kinds of training differ."""

    create_model: Callable[[bool], LandmarkModel]
    """The network to begin with; given whether its weights count, as they do not where a checkpoint has others."""
    create_objective: Callable[[LandmarkModel], Objective]
    """What is learned of the faces."""


def supervised(config: TrainConfig, faces: Faces) -> Recipe:
    """A new network, by its loss on labelled faces."""
    return Recipe(
        lambda begins: create_model(config.model, faces.train, pretrained=begins),
        lambda model: Objective(model, config.optimization),
    )


def train(config: TrainConfig, *, resume: bool = False) -> TrainResult:
    """Train a model; under torchrun, in every process.

    Each epoch ends with a checkpoint, so that whatever happens costs one epoch at most. Order, augmentation and
    initialization follow from seed and epoch: a run that was resumed ends as if it had never stopped.

    Args:
        config: what to train, on what, and where to write.
        resume: go on from ``last.pt`` in the folder, or begin if there is none yet.

    Raises:
        ValueError: a configuration that does not fit the data or the machine, or is another than that of the run to
            resume; a folder that has a run in it already.
        DataError: labels that are missing or damaged.
        TrainError: a broken image, a loss that is not finite, a full disk; names the last good checkpoint.
        ImportError: matplotlib is missing.
    """
    if not config.system.out:
        raise ValueError("system.out: expected a folder for what is written, got none; set it")
    require_matplotlib()
    with join(config.system.device) as world, settings(config.system, world):
        faces = load_faces(config.data)
        return Run(config, faces, world, resume, supervised(config, faces)).to_the_end()


class Run:
    """A run in progress: what it learns from, what learns, and how far it is."""

    def __init__(self, config: TrainConfig, faces: Faces, world: World, resume: bool, recipe: Recipe) -> None:
        """Set up, and restore what the folder's checkpoint has if the run is to be resumed."""
        self.config, self.faces, self.world = config, faces, world
        self.folder = Path(config.system.out)
        self.epoch = 0
        self.history: list[Row] = []
        self._data = {
            "name": faces.train.name,
            "faces": len(faces.train),
            "digest": face_digest(faces.train, labels=True),
        }
        checkpoint = self._find_checkpoint(resume)
        torch.manual_seed(config.system.seed)
        with world.main_first():
            model = recipe.create_model(checkpoint is None)
        self.learner = Learner(recipe.create_objective(model), config, world)
        self.loader = create_loader(config, faces.train, world)
        if checkpoint is not None:
            self.epoch, self.history = checkpoint["epoch"], checkpoint["history"]
            self.learner.restore(checkpoint)
        if world.is_main:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / CONFIG, lambda file: file.write(config.to_toml().encode()))
        self.log = Log(self.folder)
        self.progress = Progress(config.optimization.epochs, self.epoch, silent=not world.is_main)
        self._left_out = 0
        self._tell_left_out()

    def to_the_end(self) -> TrainResult:
        """Train what is left to train.

        Raises:
            TrainError: what ended the run; names the last good checkpoint.
        """
        with self._naming_the_last_checkpoint():
            while self.epoch < self.config.optimization.epochs:
                self.train_epoch()
            return self._finish()

    def train_epoch(self) -> None:
        """One pass over the data, validation, checkpoint."""
        start = time.monotonic()
        # For whatever a network draws by chance; order and augmentation have generators of their own.
        torch.manual_seed((self.config.system.seed << 20) + self.epoch)
        self.loader.set_epoch(self.epoch)
        losses = self._pass()
        self._tell_left_out()
        faces = len(self.loader) * self.config.optimization.batch_size
        # That of the last step: at the first one a warm-up is at 0.
        rate = learning_rate(self.config.optimization, self.epoch + 1 - 1 / len(self.loader))
        row: Row = {"epoch": self.epoch + 1, "learning_rate": rate, **losses}
        row["samples_per_second"] = faces / (time.monotonic() - start)
        self.learner.average.end_epoch()
        if self.world.is_main and self._is_validated(self.epoch + 1):
            assert self.faces.val is not None
            options, model = self.config.data, self.learner.average.model
            row["val_nme"] = validation.nme(model, self.faces.val, workers=options.workers, skip_bad=options.skip_bad)
        row["seconds"] = time.monotonic() - start
        self.epoch += 1
        self.history.append(row)
        if self.world.is_main:
            self._save()
            self.progress.line(row)
        self.world.barrier()

    def _finish(self) -> TrainResult:
        """Write what a run ends with."""
        final = self.folder / FINAL
        if self.world.is_main:
            save(self.learner.average.model, final)
            self.log.write(self.history, last=True)
        best = None if self.faces.val is None else self.folder / BEST
        return TrainResult(self.folder, final, best, self.history)

    @contextmanager
    def _naming_the_last_checkpoint(self) -> Iterator[None]:
        """Let whatever ends the run say from where it can go on."""
        try:
            yield
        except (ValueError, ArithmeticError, RuntimeError, OSError) as error:
            process = f"process {self.world.rank}: " if self.world.size > 1 else ""
            last = self.folder / LAST
            kept = "no checkpoint was written yet"
            if last.is_file():
                # Not self.epoch: the checkpoint of this epoch may be what could not be written.
                epoch = read_checkpoint(last)["epoch"]
                kept = f"the last good checkpoint is {last}, of epoch {epoch}; --resume goes on from there"
            raise TrainError(f"{process}{error}; {kept}") from error

    def _pass(self) -> dict[str, float]:
        """The steps of an epoch; returns the means of the terms of the loss."""
        steps, size = len(self.loader), self.config.optimization.batch_size
        looks = STEPS_BETWEEN_LOOKS[self.world.device.type]
        sums: dict[str, Tensor] = {}
        self.learner.model.train()
        with self.progress.bar(self.epoch + 1, steps * size) as bar:
            for step, batch in enumerate(self.loader, start=1):
                terms = self.learner.step(batch, self.epoch + (step - 1) / steps)
                sums = {name: sums.get(name, 0) + term for name, term in terms.items()}
                if step % looks == 0 or step == steps:
                    mean = float(sums["loss"]) / step
                    if not math.isfinite(mean):
                        raise FloatingPointError(
                            f"the loss is {mean} in epoch {self.epoch + 1}, step {step} of {steps}; a lower "
                            "learning_rate, a clip_norm or precision = float32 may help"
                        )
                    bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
                bar.update(size)
        means = self.world.sum(torch.stack(list(sums.values()))) / (steps * self.world.size)
        return dict(zip(sums, means.tolist(), strict=True))

    def _tell_left_out(self) -> None:
        """Say of how many faces nothing is learned, whenever there are more than before."""
        bad = [*self.faces.train.bad, *self.loader.bad]
        if len(bad) > self._left_out:
            self._left_out = len(bad)
            self.progress.warn(f"{len(bad)} face(s) left out, the last one {bad[-1].where}: {bad[-1].reason}")

    def _is_validated(self, epoch: int) -> bool:
        every = epoch % self.config.system.eval_every == 0 or epoch == self.config.optimization.epochs
        return self.faces.val is not None and every

    def _save(self) -> None:
        """The best model if it is this one, then the checkpoint, which ends the epoch, then what is drawn from it."""
        errors = [row["val_nme"] for row in self.history if "val_nme" in row]
        if "val_nme" in self.history[-1] and errors[-1] < min(errors[:-1], default=math.inf):
            save(self.learner.average.model, self.folder / BEST)
        content = {
            "config": self.config.to_dict(),
            "data": self._data,
            "epoch": self.epoch,
            "history": self.history,
            **self.learner.state(),
        }
        write_checkpoint(self.folder / LAST, content)
        self.log.write(self.history, last=False)

    def _find_checkpoint(self, resume: bool) -> dict[str, Any] | None:
        """The checkpoint to go on from, held against the configuration.

        Raises:
            ValueError: one that is not asked for, of another run, or not seen by all processes.
        """
        path = self.folder / LAST
        if not path.is_file():
            self._check_is_free()
        if path.is_file() and not resume:
            raise ValueError(
                f"system.out: {self.folder} holds a run already; resume it (--resume), or take another folder"
            )
        checkpoint = read_checkpoint(path) if path.is_file() else None
        epoch = torch.tensor([0 if checkpoint is None else checkpoint["epoch"]], device=self.world.device)
        if int(self.world.sum(epoch.clone())) != int(epoch) * self.world.size:
            raise ValueError(f"resume: {path}: expected one file that all machines see; share the folder")
        if checkpoint is not None:
            differing = TrainConfig.from_dict(checkpoint["config"]).differences(self.config)
            # Not the name, which may be that of a folder: it may be renamed.
            if any(checkpoint["data"][key] != self._data[key] for key in ("faces", "digest")):
                differing.append(f"data: {self._data}, not {checkpoint['data']}")
            if differing:
                raise ValueError(f"resume: {path} is of another run: {'; '.join(differing)}")
        return checkpoint

    def _check_is_free(self) -> None:
        """Raise a ValueError if the folder has a model already, or another kind of run, as self-training's."""
        if (self.folder / FINAL).is_file():
            raise ValueError(f"system.out: {self.folder} holds {FINAL} but no {LAST} to resume; take another folder")
        if (config := self.folder / CONFIG).is_file():
            try:
                TrainConfig.from_toml(config)
            except ValueError as error:
                raise ValueError(
                    f"system.out: {self.folder} holds another run ({error}); take another folder"
                ) from None


@contextmanager
def settings(config: SystemConfig, world: World) -> Iterator[None]:
    """Threads, determinism and the random state are the process'; they are as before afterwards."""
    # Its attribute is made at run time, where mypy does not see it.
    memory: Any = torch.utils.deterministic
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    deterministic, fills = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    if config.deterministic:
        # cuBLAS has to know before its first call.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        torch.set_num_threads(config.threads or threads)
        torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
        # It would cost a pass over every new tensor, to find what reads memory before it is written.
        memory.fill_uninitialized_memory = False
        torch.backends.cudnn.benchmark = not config.deterministic
        with torch.random.fork_rng([world.device] if world.device.type == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warns)
        memory.fill_uninitialized_memory = fills
        torch.backends.cudnn.benchmark = benchmark
