"""Data sets in the formats they are published in, and what training and evaluation make of them."""

from pipnet_fast.data.errors import DataError
from pipnet_fast.data.readers import open_data
from pipnet_fast.data.samples import BadSample, FaceData, Norm, Sample
from pipnet_fast.data.sources import HDF5Image, ImageFile, ImageSource

__all__ = ["BadSample", "DataError", "FaceData", "HDF5Image", "ImageFile", "ImageSource", "Norm", "Sample", "open_data"]
