"""A model compiled ahead of time by TorchInductor: a package of machine code for this kind of machine."""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from pipnet_fast._errors import first_line
from pipnet_fast._files import write_whole
from pipnet_fast.engines import inductor
from pipnet_fast.engines._onnx import quiet_export
from pipnet_fast.export._export import prepare
from pipnet_fast.export._network import Input
from pipnet_fast.export._verify import Arrays, Checked
from pipnet_fast.export.program import as_arrays, traced
from pipnet_fast.layouts import Layout


def export_aoti(
    model: Any,
    path: str | os.PathLike[str],
    *,
    input: Input = "float32",
    layout: str | Layout | None = None,
    crops: Any = None,
) -> Checked:
    """Compile a model for ``torch._inductor.aoti_load_package(path)``, in Python or C++: any B >= 1, no tracing.

    It computes on the model's device, and runs on machines of the same kind. Arguments, results, metadata (of the
    loaded package's ``get_metadata()``) and checks are those of ``export_onnx``. Takes about a minute.

    Args:
        model: as for ``export_onnx``.
        path: the file, ``.pt2``.
        input: as for ``export_onnx``.
        layout: as for ``export_onnx``.
        crops: as for ``export_onnx``.

    Returns:
        How the file was held against the model.

    Raises:
        TypeError, ValueError, ExportError, OSError: as ``export_onnx``.
        RuntimeError: no C++ compiler, or one that fails.
    """
    export = prepare("export_aoti", model, path, ".pt2", input, layout, crops)
    missing = inductor.missing()
    if missing:
        raise RuntimeError(f"export_aoti: {missing}")
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "package.pt2")
        configs = {"aot_inductor.metadata": export.metadata}
        try:
            with quiet_export():
                torch._inductor.aoti_compile_and_package(
                    traced(export.network), package_path=str(package), inductor_configs=configs
                )
        except Exception as error:  # compilers raise all there is
            raise RuntimeError(f"export_aoti: compiling failed: {first_line(error)}") from error
        compiled: Any = torch._inductor.aoti_load_package(str(package))

        def run(given: Arrays) -> tuple[Arrays, Arrays]:
            return as_arrays(compiled(torch.from_numpy(given).to(export.network.device)))

        checked = export.require_agreement("aoti", run)
        data = package.read_bytes()
    write_whole(export.place, lambda out: out.write(data))
    return checked
