"""The subjects of the whole-engine cases under the names that records have, and the keys that choose them."""

from collections.abc import Mapping, Sequence

from bench.isolated import Subject
from bench.rivals.ours import ENGINES

PREFIX = "pipnet_fast "
DENSE = ", dense head"

_RIVALS = "bench.rivals."
OFFICIAL = Subject("official, eager network and decode", f"{_RIVALS}official:build")
ORT = Subject("ONNX Runtime, NumPy decode", f"{_RIVALS}onnxruntime:build")
_BATCHED = Subject("official network, batched eager decode", f"{_RIVALS}official:build_batched")
_COMPILE = Subject("torch.compile, eager decode", f"{_RIVALS}torch_compile:build")
_MAX_AUTOTUNE = Subject(
    "torch.compile max-autotune, eager decode", f"{_RIVALS}torch_compile:build", {"mode": "max-autotune"}
)


def rivals(device: str) -> dict[str, Subject]:
    """What people run instead, for one crop at a time, by key; the baseline first."""
    everywhere = {"official": OFFICIAL, "torch.compile": _COMPILE, "onnxruntime": ORT}
    if device == "cuda":
        return {**everywhere, "max-autotune": _MAX_AUTOTUNE}
    return {
        **everywhere,
        "openvino": _openvino("OpenVINO fp32"),
        "openvino-int8": _openvino("OpenVINO int8", int8=True),
        "ncnn": Subject("ncnn, NumPy decode", f"{_RIVALS}ncnn:build"),
        "mnn": Subject("MNN, NumPy decode", f"{_RIVALS}mnn:build"),
    }


def batch_rivals(device: str) -> dict[str, Subject]:
    """What people run instead for many crops."""
    subjects = {**rivals(device), "official-batched": _BATCHED}
    if device == "cpu":
        subjects |= {
            "openvino-streams": _openvino("OpenVINO fp32, single asynchronous requests", hint="THROUGHPUT"),
            "openvino-int8-streams": _openvino(
                "OpenVINO int8, single asynchronous requests", hint="THROUGHPUT", int8=True
            ),
        }
    return subjects


def ours(device: str) -> dict[str, Subject]:
    """This package with each of its engines."""
    subjects = {f"ours-{e}": Subject(PREFIX + e, f"{_RIVALS}ours:build", {"engine": e}) for e in ENGINES[device]}
    if "cpp" in ENGINES[device]:
        options = {"engine": "cpp", "weight_storage": "float16"}
        name = f"{PREFIX}cpp, float16 weights"
        subjects["ours-cpp-float16"] = Subject(name, f"{_RIVALS}ours:build", options, exact=False)
    return subjects


def ours_dense(device: str) -> dict[str, Subject]:
    """The same engines, of which each runs the dense head too, with ``pf.ops.decode`` behind it."""
    return {
        f"dense-{e}": Subject(PREFIX + e + DENSE, f"{_RIVALS}ours:build", {"engine": e, "dense": True})
        for e in ENGINES[device]
    }


def chosen(subjects: Mapping[str, Subject], keys: Sequence[str] | None) -> list[Subject]:
    """All subjects, or the official path and those of the keys.

    Raises:
        SystemExit: a key that is not known.
    """
    unknown = sorted(set(keys or ()) - set(subjects))
    if unknown:
        raise SystemExit(f"bench: --engines: expected some of {', '.join(subjects)}; got {', '.join(unknown)}")
    return [subject for key, subject in subjects.items() if not keys or key == "official" or key in keys]


def _openvino(name: str, hint: str = "LATENCY", int8: bool = False) -> Subject:
    return Subject(f"{name}, NumPy decode", f"{_RIVALS}openvino:build", {"hint": hint, "int8": int8}, exact=not int8)
