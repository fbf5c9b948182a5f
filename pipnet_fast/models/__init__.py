"""The networks and their files."""

from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.models.checkpoint import load, save
from pipnet_fast.models.coordnet import CoordNet, CoordNetConfig
from pipnet_fast.models.grmi import GRMI, GRMIConfig
from pipnet_fast.models.mapnet import MapNet, MapNetConfig
from pipnet_fast.models.official import load_official
from pipnet_fast.models.pipnet import PIPNet, PIPNetConfig

__all__ = [
    "GRMI",
    "CoordNet",
    "CoordNetConfig",
    "GRMIConfig",
    "LandmarkModel",
    "MapNet",
    "MapNetConfig",
    "PIPNet",
    "PIPNetConfig",
    "load",
    "load_official",
    "save",
]
