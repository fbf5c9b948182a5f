"""``pipnet-fast info``: what is installed and what can run here, for bug reports."""

import argparse
import platform
from importlib import metadata
from typing import Any

import torch

import pipnet_fast
from pipnet_fast.weights import default_model

PACKAGES = ("torch", "triton", "numpy", "opencv-python-headless", "opencv-python", "safetensors")


def add_command(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the subcommand."""
    parser = commands.add_parser("info", help="versions, backends, engines and CPU features")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the report."""
    print(f"pipnet_fast {pipnet_fast.__version__}, Python {platform.python_version()}, {platform.platform()}")
    print("packages: " + ", ".join(f"{name} {_version(name)}" for name in PACKAGES))
    print(f"CPU: {torch.backends.cpu.get_cpu_capability()} (torch), {torch.get_num_threads()} threads")
    backends = pipnet_fast.ops.backends()
    if backends["cpp"]:
        from pipnet_fast import _C

        print(f"C++ instruction sets: {', '.join(_C.isas())}; in use: {_C.isa()}")
    print(f"CUDA: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'}")
    print(f"backends: {backends}")
    print(f"engines: {pipnet_fast.engines()}")
    print(f"model in the box: {default_model().name}")
    return 0


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
