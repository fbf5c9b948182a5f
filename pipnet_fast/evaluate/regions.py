"""The parts of a face that Figure 6 groups landmarks by, for the layouts of the paper."""

from pipnet_fast.layouts import Layout

# Ranges of landmarks, end left out; left and right as seen in the picture. By the number of landmarks: layouts that
# share a number share their order.
_RANGES: dict[int, dict[str, tuple[tuple[int, int], ...]]] = {
    68: {
        "left cheek": ((0, 9),),
        "right cheek": ((9, 17),),
        "left eyebrow": ((17, 22),),
        "right eyebrow": ((22, 27),),
        "nose": ((27, 36),),
        "left eye": ((36, 42),),
        "right eye": ((42, 48),),
        "mouth": ((48, 68),),
    },
    98: {
        "left cheek": ((0, 17),),
        "right cheek": ((17, 33),),
        "left eyebrow": ((33, 42),),
        "right eyebrow": ((42, 51),),
        "nose": ((51, 60),),
        "left eye": ((60, 68), (96, 97)),
        "right eye": ((68, 76), (97, 98)),
        "mouth": ((76, 96),),
    },
    106: {
        "left cheek": ((0, 17),),
        "right cheek": ((17, 33),),
        "left eyebrow": ((33, 42),),
        "right eyebrow": ((42, 51),),
        "nose": ((51, 66),),
        "left eye": ((66, 75), (104, 105)),
        "right eye": ((75, 84), (105, 106)),
        "mouth": ((84, 104),),
    },
    29: {
        "left eyebrow": ((0, 1), (2, 3), (4, 6)),
        "right eyebrow": ((1, 2), (3, 4), (6, 8)),
        "nose": ((18, 22),),
        "left eye": ((8, 9), (10, 11), (12, 14), (16, 17)),
        "right eye": ((9, 10), (11, 12), (14, 16), (17, 18)),
        "mouth": ((22, 28),),
        "chin": ((28, 29),),
    },
    19: {
        "left eyebrow": ((0, 3),),
        "right eyebrow": ((3, 6),),
        "nose": ((12, 15),),
        "left eye": ((6, 9),),
        "right eye": ((9, 12),),
        "mouth": ((15, 18),),
        "chin": ((18, 19),),
    },
}
_LAYOUTS = {
    "300w68": 68,
    "300w68_gssl": 68,
    "wflw98": 98,
    "lapa106": 106,
    "cofw29": 29,
    "aflw19": 19,
}


def regions(layout: Layout) -> dict[str, list[int]]:
    """Landmarks by region; one region "all" for a layout that is not of the paper."""
    ranges = _RANGES[_LAYOUTS[layout.name]] if layout.name in _LAYOUTS else {"all": ((0, layout.num_landmarks),)}
    return {name: [n for start, end in parts for n in range(start, end)] for name, parts in ranges.items()}
