"""Defaults of tracking, which the landmarker and the command line share."""

# Of 0, none, to 1, calm.
SMOOTHING = 0.5
# Frames: a third of a second in most videos.
DETECT_EVERY = 10
# Of the landmarks' mean score: on 100 faces of ytf68's training split the model in the box has 0.67 and more, in 99 of
# 100 boxes beside them less than this.
MIN_SCORE = 0.3
