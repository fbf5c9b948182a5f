"""What runs a whole network, from crop to landmarks."""

from pipnet_fast._availability import Availability


def engines() -> Availability:
    """Engines by name, present or not, with ``.reasons``. ``"torch"``, eager, is always there."""
    return Availability({"torch": None})


def require_engine(engine: str) -> str:
    """Resolve "auto" and check that an engine asked for by name is present."""
    if engine == "auto":
        return "torch"
    engines().require("FaceLandmarker", "engine", engine)
    return engine
