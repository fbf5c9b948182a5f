"""Two pictures of committed records: ``python -m bench.figures bench/results/MACHINE.json --out bench/results``.

``speed-accuracy.png`` is the paper's Figure 1 with speeds of this machine; ``latency-floor.png`` holds the fused head
against the dense ones and against what the machine could do at best.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl

from bench.head import EAGER, PRODUCT
from bench.record import Record, read
from bench.tables import BASE_TEXT, base_floors_ms, value

mpl.use("Agg")

import matplotlib.pyplot as plt

# Normalized mean errors on WFLW, %: PIPNet's are Table 4's; the others stand in no table, and were read off the
# paper's Figure 1 (as the official repository has it), to 0.01.
PUBLISHED_NME = {
    "PIPNet": {"mobilenet_v2": 4.79, "mobilenet_v3": 4.65, "resnet18": 4.57, "resnet50": 4.48, "resnet101": 4.31},
    "CoordNet": {"resnet18": 5.28, "resnet50": 5.06, "resnet101": 5.00},
    "MapNet": {"resnet18": 4.70, "resnet50": 4.54, "resnet101": 4.44},
    "GRMI": {"resnet50": 4.46, "resnet101": 4.31},
}
SHORT = {"mobilenet_v2": "MBv2", "mobilenet_v3": "MBv3", "resnet18": "R18", "resnet50": "R50", "resnet101": "R101"}


def speed_accuracy(records: list[Record]) -> Any:
    """Frames per second, measured here, against the published error."""
    chosen = [r for r in records if r.case == "fps" and r.median is not None]
    threads = max(r.threads for r in chosen)
    engine = next(r.metric for r in chosen if r.metric.startswith("FPS, engine"))
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for head, errors in PUBLISHED_NME.items():
        found = {b: value(chosen, subject=f"{head} {b}", metric=engine, threads=threads) for b in errors}
        points = [(r.median, errors[b], SHORT[b]) for b, r in found.items() if r is not None]
        xs, ys, _ = zip(*points, strict=True)
        axes.plot(xs, ys, marker="o" if head == "PIPNet" else "v", label=head, markersize=8)
        for x, y, name in points:
            axes.annotate(name, (x, y), textcoords="offset points", xytext=(7, 5), fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel(f"frames/s, measured on {chosen[0].device}, {threads} threads ({engine.partition(', ')[2]})")
    axes.set_ylabel("NME on WFLW, %, published by the paper")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def latency_floor(records: list[Record]) -> Any:
    """Latency of head and decoding at the base shape on one thread, and its floors."""
    chosen = [r for r in records if r.case == "head" and r.shape == BASE_TEXT and r.threads == 1]
    latencies = {r.subject: r for r in chosen if r.metric == "latency" and r.median is not None}
    rivals = [
        min((n for n in latencies if n.startswith(s)), key=lambda n: latencies[n].median or 0) for s in (EAGER, PRODUCT)
    ]
    fused = [n for n in latencies if n.startswith("fused") and n.endswith("channels-last")]
    figure, axes = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
    for row, name in enumerate(reversed([*rivals, *fused])):
        record = latencies[name]
        median = record.median or 0.0
        axes.barh(row, median, color="tab:gray" if name in rivals else "tab:blue", height=0.6)
        end = median
        if name in fused:
            storage = name.split(", ")[1].split()[0]
            for floor, color in zip(base_floors_ms(records, 1, storage), ("black", "tab:red"), strict=True):
                axes.plot([floor, floor], [row - 0.4, row + 0.4], color=color, linewidth=2)
                end = max(end, floor)
        axes.annotate(f"{median:.3g}", (end, row), textcoords="offset points", xytext=(5, -3), fontsize=8)
    axes.plot([], [], color="black", label="floor, weights in the cache")
    axes.plot([], [], color="tab:red", label="floor, weights in memory")
    axes.set_yticks(range(len(rivals) + len(fused)), list(reversed([*rivals, *fused])), fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("ms")
    axes.set_title(f"{BASE_TEXT}; {chosen[0].device}, 1 thread", fontsize=9)
    axes.margins(x=0.1)
    axes.legend(fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.figures")
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    arguments = parser.parse_args()
    records = read(arguments.file)
    for name, case, draw in (("speed-accuracy", "fps", speed_accuracy), ("latency-floor", "head", latency_floor)):
        if any(r.case == case for r in records):
            path = arguments.out / f"{name}.png"
            draw(records).savefig(path, dpi=130)
            print(path)


if __name__ == "__main__":
    main()
