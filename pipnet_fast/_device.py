"""Which device a user means, and whether it is there."""

import torch

from pipnet_fast._errors import first_line


def usable_device(argument: str, device: str | torch.device) -> torch.device:
    """A device that computes; "auto" is the GPU where there is one.

    Args:
        argument: whose value it is, for messages: "FaceLandmarker: device".
        device: "auto", or as torch names it.

    Raises:
        ValueError: no name of a device, or one without numbers.
        RuntimeError: a device that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'{argument}: expected "auto" or a torch device, got {device!r}: {error}') from None
    if chosen.type == "meta":
        raise ValueError(f"{argument}: expected one that computes, got 'meta'")
    try:
        torch.empty(1, device=chosen)
    except Exception as error:  # each kind of device fails in its own way
        raise RuntimeError(f"{argument} {str(chosen)!r} is not available: {first_line(error)}") from None
    return chosen
