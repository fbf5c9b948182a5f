"""What people do with landmarks: other layouts, five points, aligned crops, the pose of the head."""

from pipnet_fast.geometry.align import AlignedCrops, norm_crop
from pipnet_fast.geometry.five_points import to_5pts
from pipnet_fast.geometry.pose import HeadPose, head_pose
from pipnet_fast.layouts import wflw98_to_300w68

__all__ = ["AlignedCrops", "HeadPose", "head_pose", "norm_crop", "to_5pts", "wflw98_to_300w68"]
