"""The pages of docs/ and the README: what they say to run is run, once, on tiny things of the names that they use."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import pipnet_fast as pf
from pipnet_fast.cli import main
from pipnet_fast.cli.demo import astronaut
from pipnet_fast.engines import auto
from pipnet_fast.pipeline.images import read_rgb
from pipnet_fast.pipeline.video import VideoWriter
from tests.documents import ROOT, Block, blocks, lines
from tests.training import write_faces

# Its code is run by a test of its own.
GUIDE = ROOT / "docs" / "custom-landmarks.md"
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if page != GUIDE)]

# Commands that are not run here, by their first words, and why.
NOT_RUN = {
    "OMP_NUM_THREADS=4 uvicorn": "serves until it is stopped",
    "build/c/landmarks": "tests/csrc/c_api.cpp runs the C library",
    "cmake": "tests/csrc/c_api.cpp builds the C library",
    "curl": "asks over a network; tests/test_service.py asks without one",
    "make": "sets up an environment",
    "pip ": "changes what is installed",
    "pipnet-fast export": "takes ten seconds or more: tests/test_custom_landmarks.py, tests/test_cli_export.py",
    "pipnet-fast selftrain": "trains six times: tests/test_selftrain.py",
    "pipnet-fast train 300w": "needs the data set",
    "python -m bench": "measures for minutes: tests/test_bench.py",
    "torchrun": "starts processes: tests/test_train_distributed.py",
    "uvicorn": "serves until it is stopped",
}
# The same for blocks of Python, by page and a line of theirs.
NOT_RUN_PYTHON = {
    ("service.md", "app = FastAPI(lifespan=lifespan)"): "tests/test_service.py",
    ("deployment.md", "import onnxruntime"): "needs the exported file: tests/test_export.py",
}

# What makes commands small, by their first words.
SMALL = {
    "pipnet-fast annotate": ["--processes", "0"],
    "pipnet-fast data show": ["--count", "1", "--input-size", "64"],
    "pipnet-fast train --dataset": [
        *("--width", "0.0625", "--input-size", "64", "--num-neighbors", "2", "--epochs", "1", "--batch-size", "4"),
        *("--workers", "0", "--threads", "1", "--device", "cpu"),
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reader stands: photos, a clip, labelled faces, models."""
    root = tmp_path_factory.mktemp("docs")
    face = np.ascontiguousarray(read_rgb(astronaut())[:240, 100:340])
    (root / "photos").mkdir()
    for name in ("photo.jpg", "photos/anna.jpg", "photos/ben.jpg"):
        assert cv2.imwrite(str(root / name), face[:, :, ::-1])
    clip = VideoWriter(root / "clip.mp4", 25)
    for number in range(3):
        clip.write(face, number / 25)
    clip.close()
    # Of eight made-up faces few sets have a mean that is symmetric enough; this one has.
    write_faces(root / "my-faces", "train", 8, seed=7)
    write_faces(root / "my-faces", "val", 3, seed=1)
    torch.manual_seed(0)
    pf.save(pf.PIPNet("resnet18", 68, 5, input_size=64, width=0.0625, mean_shape="300w68"), root / "model.safetensors")
    torch.save(pf.PIPNet("resnet18", 98, 10, width=0.0625).state_dict(), root / "epoch59.pth")
    return root


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder as the current one, and an answer to which engine is the fastest, for measuring takes minutes."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(auto, "choose", lambda *_: auto.Choice("torch", {}))
    threads = torch.get_num_threads()
    yield folder
    torch.set_num_threads(threads)


def given() -> dict[str, Any]:
    """What the README's code has been given: crops, and features of a backbone."""
    torch.manual_seed(0)
    model = pf.PIPNet("resnet18", 98, 10, mean_shape="wflw98", width=0.0625).eval()
    x = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        features = model.forward_features(x)
    return {"x": x, "features": features}


def reason(command: str) -> str | None:
    """Why a command is not run."""
    return next((why for words, why in NOT_RUN.items() if command.startswith(words)), None)


def is_listed(page: Path, block: Block) -> bool:
    """Whether a block of Python is not run."""
    return any((page.name, line) in NOT_RUN_PYTHON for line in block.code.splitlines())


def run_command(command: str, done: set[str], where: str) -> None:
    """Run what is ours, if it has not been run for another page."""
    if reason(command) or command in done:
        return
    words = shlex.split(command, comments=True)
    assert Path(words[0]).name == "pipnet-fast", f"{where}: neither run nor listed: {command}"
    small = [word for prefix, more in SMALL.items() if command.startswith(prefix) for word in more]
    assert main([*words[1:], *small]) == 0, f"{where}: {command}"
    done.add(command)


def run_python(block: Block, names: dict[str, Any], page: Path) -> None:
    """Run a block after those before it."""
    # Tracebacks then have the page's own line numbers.
    code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
    exec(code, names)


@pytest.fixture(scope="module")
def done() -> set[str]:
    return set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_runs(page: Path, here: Path, done: set[str]) -> None:
    names: dict[str, Any] = {"__name__": page.stem, **(given() if page.name == "README.md" else {})}
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.language == "python":
            if not is_listed(page, block):
                run_python(block, names, page)
        elif block.language == "sh":
            for command in lines(block.code):
                run_command(command, done, where)
        elif block.language == "json":
            json.loads(block.code)
        else:
            assert block.language == "text", f"{where}: {block.language!r} is neither run nor read"


def test_what_is_not_run_is_on_a_page() -> None:
    commands = [c for page in PAGES for block in blocks(page, "sh") for c in lines(block.code)]
    assert not [words for words in NOT_RUN if not any(c.startswith(words) for c in commands)]
    assert not [words for words in SMALL if not any(c.startswith(words) for c in commands)]
    code = {(page.name, line) for page in PAGES for block in blocks(page, "python") for line in block.code.splitlines()}
    assert set(NOT_RUN_PYTHON) <= code


@pytest.mark.parametrize("page", [*PAGES, GUIDE], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, heading in links(page):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), f"{page.name}: {target}"
        if heading:
            assert heading in anchors(linked), f"{page.name}: {target}#{heading}"


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Path and heading of the links that stay in the repository."""
    for target in re.findall(r"\]\(([^)\s]+)\)", " ".join(page.read_text(encoding="utf-8").split("\n"))):
        if "://" not in target:
            path, _, heading = target.partition("#")
            yield path, heading


def anchors(page: Path) -> set[str]:
    """Headings, as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
