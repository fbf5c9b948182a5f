"""Bulk annotation: ``annotate(sources, out)``, or ``pipnet-fast annotate``."""

from pipnet_fast.annotate.annotation import Annotations, Progress, annotate

__all__ = ["Annotations", "Progress", "annotate"]
