"""Tables in Markdown, one function a table; each takes the records of one case and gives lines."""

from collections.abc import Iterator, Sequence

from bench.floor import head_floor_ms, head_work, machine_of
from bench.head import BASE, EAGER, PRODUCT
from bench.record import Record

BASE_TEXT = "B=1 C=512 8x8 N=98 K=10"


def conditions(records: Sequence[Record]) -> str:
    """The line above a table: what was measured on what."""
    first = records[0]
    known = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    commits = ", ".join(sorted({r.commit for r in records}))
    return f"{first.device}; {first.dtype}; medians of {first.runs} interleaved rounds; {known}; commit {commits}."


def lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table whose first column is text and whose others are numbers."""
    yield "| " + " | ".join(header) + " |"
    yield "| --- |" + " ---: |" * (len(header) - 1)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def value(records: Sequence[Record], **wanted: object) -> Record | None:
    """The record that has these fields; a metric may be given by its beginning."""
    for record in records:
        if all(
            str(getattr(record, field)).startswith(str(v)) if field == "metric" else getattr(record, field) == v
            for field, v in wanted.items()
        ):
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
    """Head and decoding at the base shape: every subject, and the floor."""
    chosen = [r for r in records if r.case == "head" and r.shape == BASE_TEXT]
    threads = sorted({r.threads for r in chosen})
    yield f"{conditions(chosen)} {BASE_TEXT}."
    yield ""
    header = ["head and decoding"]
    for count in threads:
        header += [f"ms, {count} thread{'s' * (count > 1)}", "against eager", "against product"]
    rows = []
    for subject in dict.fromkeys(r.subject for r in chosen):
        row = [subject]
        for count in threads:
            own = [r for r in chosen if r.subject == subject and r.threads == count]
            row.append(spread(value(own, metric="latency")))
            row += [number(value(own, metric=f"speed-up over {rival}"), "x") for rival in (EAGER, PRODUCT)]
        rows.append(row)
    for size, storage in ((4, "float32"), (2, "float16"), (1, "int8")):
        row = [f"floor, {storage} weights"]
        for count in threads:
            machine = machine_of(records, count)
            work = head_work(1, BASE.channels, BASE.side**2, 98, BASE.neighbors, size)
            warm, cold = (head_floor_ms(work, machine, cold) for cold in (False, True))
            row += [f"{warm:.2g}, from memory {cold:.2g}", "", ""]
        rows.append(row)
    yield from lines(header, rows)


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
