"""When an impression counts as viewable or audible.

MRC Viewable Ad Impression Measurement Guidelines (Desktop 2014, Mobile 2016), "Viewable Impression": at least 50 % of
the ad's pixels in view for at least one continuous second for display, two continuous seconds for video, in one and the
same exposure. Audibility: MRC Digital Audience-Based Measurement Standards (2017) with two continuous seconds of play at
a volume above zero, the duration of the video threshold.
"""

from typing import NamedTuple


class Viewability(NamedTuple):
    """Thresholds: share of pixels in percent, continuous times in milliseconds."""

    display_percent: int = 50
    display_ms: int = 1_000
    video_percent: int = 50
    video_ms: int = 2_000
    audible_ms: int = 2_000
