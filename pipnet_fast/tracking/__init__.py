"""Faces through a video: which is which from frame to frame, and where they are without the jitter."""
