"""The network and its files."""

from pipnet_fast.models.checkpoint import load, load_official, save
from pipnet_fast.models.pipnet import PIPNet, PIPNetConfig

__all__ = ["PIPNet", "PIPNetConfig", "load", "load_official", "save"]
