"""``python -m bench CASE --json FILE``: measure a case and write its records."""

import argparse
from pathlib import Path

from bench import (
    accuracy,
    agreement,
    annotate,
    compat,
    detector_boxes,
    e2e,
    export,
    feeding,
    floor,
    fps,
    head,
    labelling,
    layers,
    memory,
    merge,
    params,
    service,
    throughput,
    tracking,
    train,
)
from bench.record import Record, write

CASES = {
    "floor": floor,
    "head": head,
    "e2e": e2e,
    "throughput": throughput,
    "export": export,
    "layers": layers,
    "memory": memory,
    "fps": fps,
    "params": params,
    "train": train,
    "feeding": feeding,
    "accuracy": accuracy,
    "agreement": agreement,
    "detector_boxes": detector_boxes,
    "merge": merge,
    "tracking": tracking,
    "annotate": annotate,
    "labelling": labelling,
    "compat": compat,
    "service": service,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench")
    cases = parser.add_subparsers(dest="case", required=True)
    for name, module in CASES.items():
        case = cases.add_parser(name, help=(module.__doc__ or "").splitlines()[0])
        case.add_argument("--json", type=Path, help="file for the records, or a folder for one named after the device")
        module.add_arguments(case)
        case.set_defaults(measure=module.measure)
    arguments = parser.parse_args()
    records: list[Record] = arguments.measure(arguments)
    for r in records:
        if r.reason:
            print(f"{r.subject:45} {r.reason}")
        else:
            print(f"{r.subject:45} {r.metric[:40]:40} {r.median:>9} {r.unit:4} {r.threads} thread(s)  {r.shape}")
    if arguments.json:
        print(f"written to {write(records, arguments.json)}")


if __name__ == "__main__":
    main()
