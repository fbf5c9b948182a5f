"""Images per second against the size of the batch, uint8 crops to landmarks in px."""

import argparse

from bench import engine_case
from bench.isolated import Outcome, Subject
from bench.record import Record, measured
from bench.subjects import batch_rivals, chosen, ours
from bench.task import Network, Task

BATCHES = {"cpu": (1, 2, 4, 8, 16, 32), "cuda": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    engine_case.add_arguments(parser, ("resnet18",), rounds=10)
    parser.add_argument("--batch", type=int, nargs="+", help="default: 1 to 32, on CUDA to 512")


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Records of all subjects with every backbone, number of threads and batch."""
    device = arguments.device
    subjects = chosen({**batch_rivals(device), **ours(device)}, arguments.engines)
    records = []
    with engine_case.networks(arguments) as networks:
        for network in networks:
            for batch in arguments.batch or BATCHES[device]:
                for task in engine_case.tasks(arguments, network, batch):
                    outcomes = engine_case.outcomes(arguments, subjects, network, task)
                    records += [_record(subject, outcomes[subject.name], network, task) for subject in subjects]
    return records


def _record(subject: Subject, outcome: Outcome, network: Network, task: Task) -> Record:
    shared = engine_case.common("throughput", subject, outcome, network, task)
    if outcome.reason:
        return Record(metric="throughput", unit="images/s", reason=outcome.reason, **shared)
    return measured(shared, "throughput", "images/s", [task.batch * 1e3 / ms for ms in outcome.calls()])
