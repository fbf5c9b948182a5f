"""Facial landmarks by PIPNet, with head and decoding as one fused operation."""

from pipnet_fast import geometry, ops
from pipnet_fast.crop import CropRule
from pipnet_fast.engines import Runtime, compile, engines, pin_threads, save_plan
from pipnet_fast.export import export_onnx
from pipnet_fast.models import GRMI, CoordNet, MapNet, PIPNet, load, load_official, save
from pipnet_fast.neighbors import NeighborTable, neighbor_table
from pipnet_fast.ops import HeadMaps, Landmarks
from pipnet_fast.pipeline.detectors import HaarDetector, YuNetDetector
from pipnet_fast.pipeline.faces import Faces
from pipnet_fast.pipeline.landmarker import FaceLandmarker
from pipnet_fast.tracking.tracker import Tracker

__all__ = [
    "GRMI",
    "CoordNet",
    "CropRule",
    "FaceLandmarker",
    "Faces",
    "HaarDetector",
    "HeadMaps",
    "Landmarks",
    "MapNet",
    "NeighborTable",
    "PIPNet",
    "Runtime",
    "Tracker",
    "YuNetDetector",
    "compile",
    "engines",
    "export_onnx",
    "geometry",
    "load",
    "load_official",
    "neighbor_table",
    "ops",
    "pin_threads",
    "save",
    "save_plan",
]
__version__ = "0.1.0"
