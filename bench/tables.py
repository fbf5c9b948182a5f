"""Tables in Markdown, one function a table; each takes the records of one case and gives lines."""

from collections.abc import Callable, Iterator, Sequence

import pipnet_fast as pf
from bench.floor import head_floor_ms, head_work, machine_of
from bench.head import BASE, EAGER, PRODUCT
from bench.record import Record
from pipnet_fast.ops.types import STORAGES

BASE_TEXT = "B=1 C=512 8x8 N=98 K=10"


def conditions(records: Sequence[Record]) -> str:
    """The line above a table: what was measured on what."""
    runs = max(r.runs for r in records)
    return (
        f"{records[0].device}; {records[0].dtype}; medians of up to {runs} timings, the subjects taking turns; "
        f"{provenance(records)}"
    )


def provenance(records: Sequence[Record]) -> str:
    """The versions that were measured."""
    versions = {name: version for r in records for name, version in r.versions.items()}
    known = ", ".join(f"{name} {version}" for name, version in versions.items())
    commits = ", ".join(sorted({r.commit for r in records}))
    return f"{known}; commit {commits}."


def lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table whose first column is text and whose others are numbers."""
    yield "| " + " | ".join(header) + " |"
    yield "| --- |" + " ---: |" * (len(header) - 1)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def by_shape(
    records: Sequence[Record], header: Sequence[str], row: Callable[[list[Record]], Iterator[str]]
) -> Iterator[str]:
    """A table for each shape, under its name, with a row for each subject: what ``row`` gives of its records."""
    for shape in dict.fromkeys(r.shape for r in records):
        here = [r for r in records if r.shape == shape]
        subjects = dict.fromkeys(r.subject for r in here)
        yield ""
        yield f"**{shape}**"
        yield ""
        yield from lines(header, [[subject, *row([r for r in here if r.subject == subject])] for subject in subjects])


def value(records: Sequence[Record], **wanted: object) -> Record | None:
    """The record that has these fields; a metric is given by its beginning, or ``exactly``."""
    exactly, metric = wanted.pop("exactly", None), str(wanted.pop("metric", ""))
    for record in records:
        if exactly not in (None, record.metric) or not record.metric.startswith(metric):
            continue
        if all(getattr(record, field) == v for field, v in wanted.items()):
            return record
    return None


def number(record: Record | None, unit: str = "") -> str:
    """A median, or why there is none."""
    if record is None:
        return ""
    return f"{record.median:.3g}{unit}" if record.median is not None else (record.reason or "")


def spread(record: Record | None) -> str:
    """A median with the 20th and 80th percentiles."""
    if record is None or record.median is None:
        return number(record)
    return f"{record.median:.3g} ({record.p20:.3g} to {record.p80:.3g})"


def head(records: list[Record]) -> Iterator[str]:
    """Head and decoding at the base shape: the fused ones channels-last, the rivals in their better layout, floors."""
    chosen = _head_records(records)
    better = [next(r.metric for r in chosen if r.metric.startswith(f"speed-up over {s}")) for s in (EAGER, PRODUCT)]
    rivals = [metric.removeprefix("speed-up over ") for metric in better]
    fused = [r.subject for r in chosen if r.subject.startswith("fused") and r.subject.endswith("channels-last")]
    yield from _head_table(chosen, list(dict.fromkeys([*rivals, *fused])), records)


def head_layouts(records: list[Record]) -> Iterator[str]:
    """The same with every memory layout."""
    chosen = _head_records(records)
    yield from _head_table(chosen, list(dict.fromkeys(r.subject for r in chosen)), records)


def _head_records(records: Sequence[Record]) -> list[Record]:
    return [r for r in records if r.case == "head" and r.shape == BASE_TEXT]


def _head_table(chosen: Sequence[Record], subjects: Sequence[str], records: list[Record]) -> Iterator[str]:
    threads = sorted({r.threads for r in chosen})
    yield f"{conditions(chosen)} {BASE_TEXT}; speed-ups over the better layout of each rival, in paired rounds."
    yield ""
    header = ["head and decoding"]
    for count in threads:
        header += [f"ms, {count} thread{'s' * (count > 1)}", "against eager", "against product"]
    rows = []
    for subject in subjects:
        row = [subject]
        for count in threads:
            own = [r for r in chosen if r.subject == subject and r.threads == count]
            row.append(spread(value(own, metric="latency")))
            row += [number(value(own, metric=f"speed-up over {rival}"), "x") for rival in (EAGER, PRODUCT)]
        rows.append(row)
    if any(r.case == "floor" for r in records):
        rows += _floors(records, threads)
    yield from lines(header, rows)


def _floors(records: list[Record], threads: Sequence[int]) -> Iterator[list[str]]:
    for storage in STORAGES:
        row = [f"floor, {storage} weights in the cache (in memory)"]
        for count in threads:
            warm, cold = base_floors_ms(records, count, storage)
            row += [f"{warm:.2g} ({cold:.2g})", "", ""]
        yield row


def base_floors_ms(records: list[Record], threads: int, storage: str) -> tuple[float, float]:
    """The floors of the head at the base shape, its weights in the cache and in memory."""
    landmarks = pf.neighbor_table(BASE.layout, BASE.neighbors).num_landmarks
    size = STORAGES[storage].itemsize
    work = head_work(BASE.batch, BASE.channels, BASE.side**2, landmarks, BASE.neighbors, size)
    machine = machine_of(records, threads)
    return head_floor_ms(work, machine, cold=False), head_floor_ms(work, machine, cold=True)


def head_sweep(records: list[Record]) -> Iterator[str]:
    """Head and decoding over landmarks, widths, strides and batches, at the best instruction set, channels-last."""
    chosen = [r for r in records if r.case == "head" and "channels-last" in r.subject and "scalar" not in r.subject]
    fused = [r.subject for r in chosen if r.subject.startswith("fused") and "float32" in r.subject]
    best = fused[-1].split(",")[0]
    subjects = {
        f"{EAGER}, channels-last": "eager, ms",
        f"{PRODUCT}, channels-last": "product, ms",
        **{f"{best}, {s} weights, channels-last": f"fused {s}, ms" for s in ("float32", "float16", "int8")},
    }
    yield f"{conditions(chosen)} {best}, channels-last; speed-ups of float32 weights over the better layout."
    yield ""
    rows = []
    for threads in sorted({r.threads for r in chosen}):
        for shape in dict.fromkeys(r.shape for r in chosen):
            here = [r for r in chosen if r.shape == shape and r.threads == threads]
            row = [shape, str(threads)]
            row += [number(value(here, subject=subject, metric="latency")) for subject in subjects]
            own = f"{best}, float32 weights, channels-last"
            row += [number(value(here, subject=own, metric=f"speed-up over {r}"), "x") for r in (EAGER, PRODUCT)]
            rows.append(row)
    yield from lines(["shape", "threads", *subjects.values(), "against eager", "against product"], rows)


def params(records: list[Record]) -> Iterator[str]:
    """Table 9's left half: counted here, and the paper's."""
    chosen = [r for r in records if r.case == "params"]
    yield f"256x256; counted by torch {chosen[0].versions['torch']}, the paper's figures in brackets."
    yield ""
    header = ["network", "N", "parameters, M", "multiply-accumulates, G", "with the fused head, G"]
    rows = []
    notes: dict[str, None] = {}
    for subject in dict.fromkeys(r.subject for r in chosen):
        own = [r for r in chosen if r.subject == subject]
        cells = [subject, own[0].shape.partition("N=")[2].split()[0]]
        for metric in ("parameters", "multiply-accumulates"):
            ours, paper = (value(own, exactly=metric + end) for end in ("", ", paper"))
            cells.append(f"{number(ours)} ({number(paper)})")
        cells.append(number(value(own, exactly="multiply-accumulates, fused head")))
        for record in own:
            if record.note and record.metric.endswith("without deconvolutions"):
                cells[3] += f", {number(record)} without deconvolutions"
                notes[f"{subject.split()[0]}: {record.note}."] = None
        rows.append(cells)
    yield from lines(header, rows)
    yield ""
    yield from notes


def fps(records: list[Record]) -> Iterator[str]:
    """Table 9's right half: measured here in one engine, and the paper's."""
    chosen = [r for r in records if r.case == "fps"]
    engine = next(r.metric for r in chosen if r.metric.startswith("FPS, engine"))
    yield f"{conditions(chosen)} {chosen[0].shape}; {engine}; ratios of paired rounds."
    yield ""
    threads = sorted({r.threads for r in chosen})
    header = ["network"]
    for count in threads:
        header += [f"frames/s, {count} thread{'s' * (count > 1)}", "against CoordNet"]
    header.append("paper")
    rows = []
    for subject in dict.fromkeys(r.subject for r in chosen):
        row = [subject]
        for count in threads:
            own = [r for r in chosen if r.subject == subject and r.threads == count]
            row += [spread(value(own, metric=engine)), number(value(own, metric="speed-up over CoordNet"), "x")]
        rows.append([*row, number(value(chosen, subject=subject, metric="FPS, paper"))])
    yield from lines(header, rows)
    yield ""
    yield f"Paper: {next(r.note for r in chosen if r.metric == 'FPS, paper')}."


def e2e(records: list[Record]) -> Iterator[str]:
    """Whole networks, a table for each backbone."""
    chosen = [r for r in records if r.case == "e2e"]
    yield (
        f"{conditions(chosen)} uint8 crop to landmarks in px, batch 1, every engine in a process of its own, in "
        f"alternating blocks."
    )
    threads = sorted({r.threads for r in chosen})
    header = ["engine"]
    for count in threads:
        header += [
            f"ms, {count} thread{'s' * (count > 1)}",
            "against official",
            "against ONNX Runtime",
            "own dense head",
        ]

    def row(own: list[Record]) -> Iterator[str]:
        for count in threads:
            here = [r for r in own if r.threads == count]
            yield spread(value(here, metric="latency"))
            for other in ("official", "ONNX Runtime", "pipnet_fast"):
                yield number(value(here, metric=f"speed-up over {other}"), "x")

    yield from by_shape(chosen, header, row)


def export(records: list[Record]) -> Iterator[str]:
    """ONNX files with landmarks inside against dense maps, a table for each backbone."""
    chosen = [r for r in records if r.case == "export"]
    yield (
        f"{conditions(chosen)} uint8 crops to landmarks in px, every subject in a process of its own, in alternating "
        "blocks; speed-ups over dense maps in the same runtime, in paired rounds."
    )
    threads = sorted({r.threads for r in chosen})
    header = ["file and runtime"]
    for count in threads:
        header += [f"ms, {count} thread{'s' * (count > 1)}", "against dense maps"]
    header.append("median deviation from float64, px")

    def row(own: list[Record]) -> Iterator[str]:
        for count in threads:
            here = [r for r in own if r.threads == count]
            yield spread(value(here, metric="latency"))
            yield number(value(here, metric="speed-up"), "x")
        yield number(value(own, metric="deviation"))

    yield from by_shape(chosen, header, row)


def e2e_short(records: list[Record]) -> Iterator[str]:
    """Latency of whole networks, engines by backbones, with the most threads."""
    chosen = [r for r in records if r.case == "e2e" and r.metric == "latency"]
    threads = max(r.threads for r in chosen)
    chosen = [r for r in chosen if r.threads == threads]
    shapes = list(dict.fromkeys(r.shape for r in chosen))
    yield (
        f"{conditions(chosen)} {threads} threads; {' '.join(shapes[0].split()[1:])}; uint8 crop to landmarks in px, "
        "every engine in a process of its own, in alternating blocks; ms, the 20th to 80th percentile in brackets."
    )
    yield ""
    rows = [
        [subject, *(spread(value(chosen, subject=subject, shape=shape)) for shape in shapes)]
        for subject in dict.fromkeys(r.subject for r in chosen)
    ]
    yield from lines(["crop to landmarks", *(shape.split()[0] for shape in shapes)], rows)


def throughput(records: list[Record]) -> Iterator[str]:
    """Images per second against the size of the batch."""
    chosen = [r for r in records if r.case == "throughput"]
    yield f"{conditions(chosen)} Images/s, uint8 crops to landmarks in px."
    network, threads = chosen[0].shape.split()[0], chosen[0].threads
    batches = sorted({_batch(r) for r in chosen})
    rows = []
    for subject in dict.fromkeys(r.subject for r in chosen):
        own = {_batch(r): r for r in chosen if r.subject == subject}
        rows.append([subject, *(number(own.get(batch)) for batch in batches)])
    yield ""
    yield from lines([f"{network}, {threads} threads; batch", *map(str, batches)], rows)


def layers(records: list[Record]) -> Iterator[str]:
    """Steps of the C++ engine by their kind: times, and the floors that they are held against."""
    yield from _layers(records, lambda subject: subject.rpartition(", ")[0])


def layers_each(records: list[Record]) -> Iterator[str]:
    """The same for every step."""
    yield from _layers(records, lambda subject: subject)


def _layers(records: list[Record], kind: Callable[[str], str]) -> Iterator[str]:
    chosen = [r for r in records if r.case == "layers"]
    threads = sorted({r.threads for r in chosen})
    yield (
        f"{conditions(chosen)} One crop; steps of a kind together. A floor is the longer of a step's "
        "multiply-accumulates at the rate of a matrix product and its weights at the rate of reading memory."
    )
    header = ["step", "M multiply-accumulates"]
    for count in threads:
        header += [f"ms, {count} thread{'s' * (count > 1)}", "floor", "times the floor"]
    for shape in dict.fromkeys(r.shape for r in chosen):
        here = [r for r in chosen if r.shape == shape]
        kinds: dict[str, list[str]] = {}
        for subject in dict.fromkeys(r.subject for r in here):
            kinds.setdefault(kind(subject), []).append(subject)
        kinds["all steps"] = list(dict.fromkeys(r.subject for r in here))
        rows = []
        for name, subjects in kinds.items():
            row = [name, f"{_sum(here, subjects, threads[0], 'multiply-accumulates'):.3g}"]
            for count in threads:
                time = _sum(here, subjects, count, "time")
                floor = sum(
                    max(_sum(here, [subject], count, f"floor of {what}") for what in ("arithmetic", "reading weights"))
                    for subject in subjects
                )
                row += [f"{time:.3g}", f"{floor:.3g}", f"{time / floor:.3g}x" if floor else ""]
            rows.append(row)
        yield ""
        yield f"**{shape}**"
        yield ""
        yield from lines(header, rows)


def _sum(records: Sequence[Record], subjects: Sequence[str], threads: int, metric: str) -> float:
    return sum(
        r.median or 0.0 for r in records if r.subject in subjects and r.threads == threads and r.metric == metric
    )


def memory(records: list[Record]) -> Iterator[str]:
    """Peak memory of engines and the time until they are ready."""
    chosen = [r for r in records if r.case == "memory"]
    threads = max(r.threads for r in chosen)
    chosen = [r for r in chosen if r.threads == threads]
    shapes = list(dict.fromkeys(r.shape for r in chosen))
    count = f"{threads} thread{'s' * (threads > 1)}"
    yield (
        f"{chosen[0].device}; {count}; {provenance(chosen)} From a file on disk to a few crops' results, in a "
        "process of its own that had imported what the engine needs; MB of 10^6 bytes."
    )
    yield ""
    header = ["engine"]
    for shape in shapes:
        header += [f"{shape.split()[0]}, peak MB", "kept MB", "ready after, ms"]
    rows = []
    for subject in dict.fromkeys(r.subject for r in chosen):
        row = [subject]
        for shape in shapes:
            own = [r for r in chosen if r.subject == subject and r.shape == shape]
            metrics = ("peak memory", "memory kept", "time until ready")
            peak, kept, ready = (value(own, metric=metric) for metric in metrics)
            row += [
                number(peak),
                number(kept),
                f"{ready.median:.0f}" if ready and ready.median is not None else number(ready),
            ]
        rows.append(row)
    yield from lines(header, rows)


def agreement(records: list[Record]) -> Iterator[str]:
    """The C++ engine against torch on labelled faces."""
    chosen = [r for r in records if r.case == "agreement"]
    yield f"{chosen[0].device}, one thread; {provenance(chosen)}"
    yield ""
    metrics = {
        "other winning cells": "other winning cells",
        "landmarks within": next(r.metric for r in chosen if r.metric.startswith("landmarks within")) + ", %",
        "distance from torch's landmarks, largest": "largest distance",
        "NME inter-ocular, mean": "NME, %",
        "NME inter-ocular, mean, torch": "of torch, %",
    }
    rows = []
    for subject, shape in dict.fromkeys((r.subject, r.shape) for r in chosen):
        own = [r for r in chosen if r.subject == subject and r.shape == shape]
        row = [subject, shape]
        for metric in metrics:
            found = [r for r in own if r.metric == metric] or [r for r in own if r.metric.startswith(metric)]
            row.append(" ".join(filter(None, (f"{found[0].median:.4g}", found[0].note))) if found else "")
        rows.append(row)
    yield from lines(["network and engine", "faces", *metrics.values()], rows)


def accuracy(records: list[Record]) -> Iterator[str]:
    """Errors of models on labelled faces, a table for each set."""
    chosen = [r for r in records if r.case == "accuracy"]
    yield f"Inter-ocular; {provenance(chosen)}"
    metrics = {
        "NME inter-ocular, mean": "NME, %",
        "NME inter-ocular": "median, %",
        "faces not detected": "not detected, %",
        "faces not detected or above 10%": "not detected or above 10%, %",
        "mean error along x": "mean error along x, px",
        "mean error along y": "along y, px",
    }
    for shape in dict.fromkeys(r.shape for r in chosen):
        here = [r for r in chosen if r.shape == shape]
        rows = []
        for subject in dict.fromkeys(r.subject for r in here):
            found = (value(here, subject=subject, exactly=metric) for metric in metrics)
            rows.append([subject, *("" if r is None else f"{r.median:.4g}" for r in found)])
        yield ""
        yield f"**{shape}**"
        yield ""
        yield from lines(["model", *metrics.values()], rows)


def _batch(record: Record) -> int:
    return int(record.shape.partition("B=")[2].split()[0])


def train(records: list[Record]) -> Iterator[str]:
    """The training step's time and memory, dense maps against labelled cells only."""
    chosen = [r for r in records if r.case == "train"]
    dense, ours = "dense maps", "labelled cells only"
    yield (
        f"{conditions(chosen)} A step is forward and backward; the rival is the faster of two dense losses, its target "
        "maps given for free; channels-last features."
    )
    yield ""
    rows = []
    for shape, threads in dict.fromkeys((r.shape, r.threads) for r in chosen):
        here = [r for r in chosen if r.shape == shape and r.threads == threads]
        labels = [value(here, subject=subject, metric="labels") for subject in (dense, ours)]
        own = f"{ours}, channels-last"
        ratio = value(here, subject=own, metric="loss speed-up")
        rival = ratio.metric.removeprefix("loss speed-up over ") if ratio else ""
        kept = [value(here, subject=subject, metric="loss, kept") for subject in (rival, own)]
        step = value(here, subject=f"{ours}, ResNet-18", metric="network speed-up")
        rows.append(
            [
                shape,
                str(threads),
                *(number(value(here, subject=subject, metric="loss step")) for subject in (rival, own)),
                number(ratio, "x"),
                " to ".join(map(number, labels)),
                " to ".join(map(number, kept)),
                number(step, "x"),
            ]
        )
    header = ["shape", "threads", "dense, ms", "ours, ms", "speed-up", "labels, MB", "kept for backward, MB"]
    yield from lines([*header, "whole ResNet-18 step"], rows)


def feeding(records: list[Record]) -> Iterator[str]:
    """Training samples per second of one core, augmented and normalized."""
    chosen = [r for r in records if r.case == "feeding"]
    yield f"{conditions(chosen)} {chosen[0].shape}; seconds of the core's own work."
    yield ""
    rows = []
    for subject in dict.fromkeys(r.subject for r in chosen):
        metrics = ("batch", "samples per second", "speed-up")
        batch, rate, ratio = (value(chosen, subject=subject, metric=metric) for metric in metrics)
        per_second = f"{rate.median:.0f}" if rate and rate.median is not None else number(rate)
        rows.append([subject, spread(batch), per_second, number(ratio, "x")])
    yield from lines(["reading and augmenting", "ms a batch", "samples/s", "against official"], rows)


def service(records: list[Record]) -> Iterator[str]:
    """The HTTP service under load, a row for each way to run it and number of clients."""
    chosen = [r for r in records if r.case == "service"]
    yield f"{conditions(chosen)} {chosen[0].shape.partition('; ')[2]}; clients on the same cores."
    yield ""
    rows = []
    for subject, shape in dict.fromkeys((r.subject, r.shape) for r in chosen):
        here = [r for r in chosen if r.subject == subject and r.shape == shape]
        metrics = ("throughput", "latency", "95th", "99th")
        rows.append([subject, shape.split()[0], *(number(value(here, metric=metric)) for metric in metrics)])
    yield from lines(["requests", "clients", "answers/s", "p50, ms", "p95, ms", "p99, ms"], rows)


def tracking(records: list[Record]) -> Iterator[str]:
    """Jitter, error and lag of tracked faces, a table for each motion; then frames per second."""
    chosen = [r for r in records if r.case == "tracking" and r.subject != "thresholds"]
    yield f"{chosen[0].device}; {provenance(chosen)} Medians over the faces."
    metrics = {
        "jitter": "jitter, % of the side",
        "NME": "NME, %",
        "lag": "lag, ms",
        "frames with a": "frames with a call of the detector, %",
        "frames without": "frames without the face, %",
        "faces with": "faces with more than one id",
    }
    speed = [r for r in chosen if r.metric == "frames per second"]
    judged = [r for r in chosen if r not in speed]

    def row(own: list[Record]) -> Iterator[str]:
        for metric in metrics:
            yield number(value(own, metric=metric))

    yield from by_shape(judged, ["boxes from", *metrics.values()], row)
    shapes = list(dict.fromkeys(r.shape for r in speed))
    if not shapes:
        return
    yield ""
    yield from lines(
        ["frames per second", *shapes],
        [
            [subject, *(spread(value(speed, subject=subject, shape=shape)) for shape in shapes)]
            for subject in dict.fromkeys(r.subject for r in speed)
        ],
    )


def compat(records: list[Record]) -> Iterator[str]:
    """Other packages' calls, aligned crops and poses: a row for everything that was measured."""
    chosen = [r for r in records if r.case == "compat"]
    yield f"{conditions(chosen)} One thread; {chosen[0].shape}."
    yield ""
    yield from lines(["", "what", "median", "unit"], [[r.subject, r.metric, spread(r), r.unit] for r in chosen])


def annotate(records: list[Record]) -> Iterator[str]:
    """Bulk annotation against a loop: what few and many pictures take."""
    chosen = [r for r in records if r.case == "annotate"]
    metrics = ("pictures per second", "peak memory")
    few, many = [shape for shape in dict.fromkeys(r.shape for r in chosen) if " and " not in shape.rpartition(";")[2]]
    yield f"{conditions(chosen)} {few.rpartition(';')[0]}."
    yield ""
    rows = []
    for subject in dict.fromkeys(r.subject for r in chosen):
        own = [r for r in chosen if r.subject == subject]
        marginal, gain = value(own, metric="pictures per second, marginal"), value(own, metric="speed-up")
        each = [number(value(own, metric=metric, shape=shape)) for metric in metrics for shape in (few, many)]
        size = number(value(own, metric="table"))
        rows.append([subject, *each[:2], number(marginal), number(gain, "x"), *each[2:], size])
    counts = [shape.rpartition("; ")[2] for shape in (few, many)]
    header = [f"pictures/s, {counts[0]}", counts[1], "marginal", "over the loop", f"peak MB, {counts[0]}", counts[1]]
    yield from lines(["", *header, "bytes a face on disk"], rows)


def labelling(records: list[Record]) -> Iterator[str]:
    """Pseudo-labels: speed and memory by the number of faces."""
    chosen = [r for r in records if r.case == "labelling"]
    metrics = dict.fromkeys((r.metric, r.unit) for r in chosen)
    yield f"{conditions(chosen)} One thread."
    yield ""
    yield from lines(
        ["", *(f"{metric}, {unit}" for metric, unit in metrics)],
        [
            [shape, *(number(value(chosen, metric=metric, shape=shape)) for metric, _ in metrics)]
            for shape in dict.fromkeys(r.shape for r in chosen)
        ],
    )
