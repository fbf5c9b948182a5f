"""Models as files that run without this package: ONNX, torch.export and machine code."""

from pipnet_fast.export._verify import Checked, ExportError, Int8Cost
from pipnet_fast.export.aoti import export_aoti
from pipnet_fast.export.int8 import Int8
from pipnet_fast.export.onnx import export_onnx
from pipnet_fast.export.program import export_program

__all__ = ["Checked", "ExportError", "Int8", "Int8Cost", "export_aoti", "export_onnx", "export_program"]
