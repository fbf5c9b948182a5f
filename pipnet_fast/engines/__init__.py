"""What runs a whole network, from crop to landmarks: one file an engine, one ``Runtime`` around them all."""

from pipnet_fast.engines._compile import compile, engines, fastest_known
from pipnet_fast.engines._save_plan import save_plan
from pipnet_fast.engines.cpp import pin_threads
from pipnet_fast.engines.runtime import Runtime

__all__ = ["Runtime", "compile", "engines", "fastest_known", "pin_threads", "save_plan"]
