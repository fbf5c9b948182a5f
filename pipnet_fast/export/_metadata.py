"""What an exported file says of itself, as text by name: enough to crop faces for it and to name its landmarks."""

import json
from dataclasses import asdict

import numpy as np

import pipnet_fast
from pipnet_fast.export._network import Input
from pipnet_fast.layouts import Layout, layout_names, load_layout, load_mean_shape
from pipnet_fast.models import PIPNet
from pipnet_fast.models._base import LandmarkModel
from pipnet_fast.models.digest import model_digest

# The version of these entries.
FORMAT = "pipnet_fast.export/1"


def metadata(operation: str, model: LandmarkModel, input: Input, layout: str | Layout | None) -> dict[str, str]:
    """The entries; lists and groups of values are JSON.

    ``format``, ``version`` of the package, ``model_sha256``; ``kind`` of the model, with its entries as configured
    (``backbone``, ``num_landmarks``, ``stride``, ``input_size``, ``merge`` ...); ``input``; ``crop``, the rule by which
    crops follow from tight face boxes, with its pixel base; ``mean_shape`` (N, 2) of a PIPNet; and where the layout is
    known ``layout``, its name, ``flip``, the permutation that mirrors landmarks, and ``outer_eyes``, the two landmarks
    whose distance errors are divided by. A quantized file also has ``trunk``, "int8".

    Args:
        operation: for messages.
        model: the model.
        input: what the file takes.
        layout: what the landmarks are; None for the layout whose mean shape the model has, if there is one.

    Raises:
        ValueError: no layout of that name, or one of another N.
    """
    entries = {
        "format": FORMAT,
        "version": pipnet_fast.__version__,
        "model_sha256": model_digest(model),
        "kind": type(model).__name__,
        **{name: str(value) for name, value in model.config.to_dict().items()},
        "input": input,
        "crop": json.dumps(asdict(model.crop)),
    }
    if isinstance(model, PIPNet) and model.mean_shape is not None:
        entries["mean_shape"] = json.dumps(model.mean_shape.tolist())
    layout = _layout(operation, model, layout)
    if layout is not None:
        entries |= {"layout": layout.name, "flip": json.dumps(layout.flip.tolist())}
        if layout.outer_eyes is not None:
            entries["outer_eyes"] = json.dumps(layout.outer_eyes)
    return entries


def _layout(operation: str, model: LandmarkModel, layout: str | Layout | None) -> Layout | None:
    landmarks = model.config.num_landmarks
    if layout is None:
        shape = model.mean_shape if isinstance(model, PIPNet) else None
        same = (name for name in layout_names() if shape is not None and np.array_equal(load_mean_shape(name), shape))
        return next(map(load_layout, same), None)
    found = load_layout(layout) if isinstance(layout, str) else layout
    if not isinstance(found, Layout):
        raise TypeError(f"{operation}: layout: expected a name or a Layout, got {type(layout).__name__}")
    if found.num_landmarks != landmarks:
        raise ValueError(
            f"{operation}: layout: expected one of {landmarks} landmarks as the model has, got {found.name} of "
            f"{found.num_landmarks}"
        )
    return found
