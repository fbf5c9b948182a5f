"""Exported ONNX files in the runtimes that they are for: landmarks in the file, or dense maps and a decode outside."""

import argparse
from collections.abc import Mapping, Sequence

from bench import engine_case
from bench.isolated import Outcome, Subject
from bench.record import Record, measured
from bench.task import Network, Task

_FILE = "bench.rivals.one_file:"
_RIVALS = "bench.rivals."

# By key; what people deploy today first in each runtime.
SUBJECTS = {
    "ort-dense": Subject("ONNX Runtime, dense maps, NumPy ends", f"{_RIVALS}onnxruntime:build"),
    "ort-float32": Subject("ONNX Runtime, one file, NumPy normalization", f"{_FILE}onnxruntime", {"input": "float32"}),
    "ort": Subject("ONNX Runtime, one file", f"{_FILE}onnxruntime"),
    "ort-int8": Subject("ONNX Runtime, one file, int8", f"{_FILE}onnxruntime", {"int8": True}, exact=False),
    "openvino-dense": Subject("OpenVINO, dense maps, NumPy decode", f"{_RIVALS}openvino:build"),
    "openvino": Subject("OpenVINO, one file", f"{_FILE}openvino"),
    "openvino-dynamic": Subject("OpenVINO, one file, any batch", f"{_FILE}openvino", {"static": False}),
    "openvino-int8": Subject("OpenVINO, one file, int8", f"{_FILE}openvino", {"int8": True}, exact=False),
}

NOT_CHOSEN = Outcome(reason="not chosen")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    engine_case.add_arguments(parser, ("resnet18", "mobilenet_v2", "mobilenet_v3"), rounds=20)
    parser.add_argument("--batch", type=int, default=1, metavar="B", help="crops in one call (default: 1)")


def measure(arguments: argparse.Namespace) -> list[Record]:
    """Records of all subjects with every backbone and number of threads."""
    unknown = sorted(set(arguments.engines or ()) - set(SUBJECTS))
    if unknown:
        raise SystemExit(f"bench: --engines: expected some of {', '.join(SUBJECTS)}; got {', '.join(unknown)}")
    subjects = [subject for key, subject in SUBJECTS.items() if not arguments.engines or key in arguments.engines]
    records = []
    with engine_case.networks(arguments) as networks:
        for network in networks:
            for task in engine_case.tasks(arguments, network, arguments.batch):
                outcomes = engine_case.outcomes(arguments, subjects, network, task)
                records += _records(subjects, outcomes, network, task)
    return records


def baseline(subject: Subject) -> Subject:
    """The dense maps in the same runtime."""
    runtime = subject.name.partition(",")[0]
    return next(other for other in SUBJECTS.values() if other.name.startswith(f"{runtime}, dense"))


def _records(
    subjects: Sequence[Subject], outcomes: Mapping[str, Outcome], network: Network, task: Task
) -> list[Record]:
    records = []
    for subject in subjects:
        outcome, dense = outcomes[subject.name], baseline(subject)
        shared = engine_case.common("export", subject, outcome, network, task)
        if outcome.reason:
            records.append(Record(metric="latency", unit="ms", reason=outcome.reason, **shared))
            continue
        records.append(measured(shared, "latency", "ms", outcome.calls()))
        if subject is not dense and (ratios := outcome.speed_up_over(outcomes.get(dense.name, NOT_CHOSEN))):
            records.append(measured(shared, "speed-up over dense maps", "x", ratios))
        records.append(engine_case.deviation(shared, outcome))
    return records
