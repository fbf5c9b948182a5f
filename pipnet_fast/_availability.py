"""What can run on this machine, and why the rest cannot."""

from collections.abc import Mapping


class Availability(dict[str, bool]):
    """``name -> present`` with ``reasons`` for those that are absent; its text shows both."""

    def __init__(self, absent: Mapping[str, str | None]) -> None:
        """``absent`` maps each name to the reason for its absence, or to None where it is present."""
        super().__init__({name: reason is None for name, reason in absent.items()})
        self.reasons: dict[str, str] = {name: reason for name, reason in absent.items() if reason is not None}

    def present(self) -> list[str]:
        """Names of those that can run."""
        return [name for name, present in self.items() if present]

    def require(self, operation: str, argument: str, name: str) -> None:
        """Raise ValueError unless ``name`` is known, RuntimeError unless it is present."""
        if name not in self:
            raise ValueError(f'{operation}: {argument}: expected "auto" or one of {list(self)}, got {name!r}')
        if not self[name]:
            raise RuntimeError(
                f"{operation}: {argument} {name!r} is not available here: {self.reasons[name]}; "
                f"present: {', '.join(self.present())}"
            )

    def __repr__(self) -> str:
        """``{'reference': True, 'triton': False (triton is not installed)}``."""
        parts = (
            f"{name!r}: {present}" + (f" ({self.reasons[name]})" if not present else "")
            for name, present in self.items()
        )
        return "{" + ", ".join(parts) + "}"

    __str__ = __repr__
