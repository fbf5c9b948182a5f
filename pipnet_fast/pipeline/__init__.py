"""From photos to faces: images, detectors, crops, the landmarker, and pictures of what it found."""
