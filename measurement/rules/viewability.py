"""When an impression counts as viewable or audible.

MRC Viewable Ad Impression Measurement Guidelines (Desktop 2014, Mobile 2016), "Viewable Impression": at least 50 % of
the ad's pixels in view for at least one continuous second for display, two continuous seconds for video, in one and the
same exposure. Audibility: MRC Digital Audience-Based Measurement Standards (2017) with two continuous seconds of play at
a volume above zero, the duration of the video threshold.

Large display: the Desktop guidelines let ads of 242,500 pixels and more (970 x 250) be viewable at 30 % of their pixels, for
the same second. Whether an ad is one its creative's size says.

Duration: the MRC Cross-Media Audience Measurement Standards (2019) weight video impressions by the share of the ad that was
in view. The weight is here for reports to come; no count uses it (``duration_weighting`` of a policy must be off).
"""

from fractions import Fraction
from typing import NamedTuple


class Viewability(NamedTuple):
    """Thresholds: share of pixels in percent, continuous times in milliseconds."""

    display_percent: int = 50
    display_ms: int = 1_000
    video_percent: int = 50
    video_ms: int = 2_000
    audible_ms: int = 2_000
    large_display_percent: int = 30
    large_display_pixels: int = 242_500  # width x height, as the impression states its creative's


def duration_weight(viewed_ms: int, ad_duration_ms: int) -> Fraction:
    """The weight of a viewable video impression: the share of the ad's duration (ms) that was in view, 1 at most.

    Source: MRC Cross-Media Audience Measurement Standards, Phase I Video (2019), duration weighting. ValueError for an ad without
    a duration or a negative time.
    """
    if ad_duration_ms <= 0 or viewed_ms < 0:
        raise ValueError(f"{viewed_ms} ms in view of an ad of {ad_duration_ms} ms")
    return min(Fraction(viewed_ms, ad_duration_ms), Fraction(1))
