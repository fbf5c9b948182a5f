"""What tells the faces of a data set from others, wherever it lies."""

import hashlib
import os

import numpy as np

from pipnet_fast.data.samples import FaceData


def face_digest(data: FaceData, *, labels: bool) -> str:
    """SHA-256, in hexadecimal digits, of the names of the files, the boxes and, if asked for, the landmarks.

    Folders do not count, nor does the name of the set, which may be that of its folder: it may be moved and renamed.
    """
    digest = hashlib.sha256()
    for sample in data.samples:
        # Names of files may hold any byte.
        digest.update(os.path.basename(str(sample.image)).encode(errors="backslashreplace") + b"\0")
        digest.update(np.asarray(sample.box, dtype=np.float64).tobytes())
        if labels and sample.landmarks is not None:
            digest.update(np.asarray(sample.landmarks, dtype=np.float64).tobytes())
    return digest.hexdigest()
