"""Whole networks, uint8 crop to landmarks in px: every engine of ours against what people run instead."""

import argparse
from collections.abc import Mapping, Sequence

from bench import engine_case
from bench.isolated import Outcome, Subject
from bench.record import Record, measured
from bench.subjects import DENSE, OFFICIAL, ORT, PREFIX, chosen, ours, ours_dense, rivals
from bench.task import Network, Task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    engine_case.add_arguments(parser, ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3"), rounds=20)


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Records of all subjects with every backbone and number of threads, one crop at a time."""
    device = arguments.device
    subjects = chosen({**rivals(device), **ours(device), **ours_dense(device)}, arguments.engines)
    records = []
    with engine_case.networks(arguments) as networks:
        for network in networks:
            for task in engine_case.tasks(arguments, network, batch=1):
                outcomes = engine_case.outcomes(arguments, subjects, network, task)
                records += _records(subjects, outcomes, network, task)
    return records


def _records(
    subjects: Sequence[Subject], outcomes: Mapping[str, Outcome], network: Network, task: Task
) -> list[Record]:
    records = []
    for subject in subjects:
        outcome = outcomes[subject.name]
        shared = engine_case.common("e2e", subject, outcome, network, task)
        if outcome.reason:
            records.append(Record(metric="latency", unit="ms", reason=outcome.reason, **shared))
            continue
        records.append(measured(shared, "latency", "ms", outcome.calls()))
        for other in baselines(subject.name):
            if ratios := outcome.speed_up_over(outcomes.get(other, NOT_CHOSEN)):
                records.append(measured(shared, f"speed-up over {other}", "x", ratios))
        records.append(engine_case.deviation(shared, outcome))
    return records


NOT_CHOSEN = Outcome(reason="not chosen")


def baselines(subject: str) -> list[str]:
    """What a subject is compared with: the official path, and ours also with ONNX Runtime and with a dense head."""
    others = [OFFICIAL.name]
    if subject.startswith(PREFIX) and not subject.endswith(DENSE):
        others += [ORT.name, subject + DENSE]
    return [other for other in others if other != subject]
