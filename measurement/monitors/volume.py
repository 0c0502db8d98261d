"""Campaigns of which the impressions have stopped: held against the same hour of other weeks or days. Pure; times are µs.

A campaign may end, pause or be paced down, and none of it is ours. What is looked for is a campaign that was there in the same hour of
nearly every week and is gone now, where nobody has said that its flight has ended.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from measurement.model.events import MICROS_PER_HOUR, TEST_ADVERTISER
from measurement.monitors.sample import Sample, at_look, unknown
from measurement.monitors.slo import Level
from measurement.monitors.times import instant

LEAST_PAST = 3  # hours
_NAMED = 3  # campaigns in the text

Campaign = tuple[str, str]  # advertiser_id, campaign_id


@dataclass(frozen=True)
class Volume:
    """Impressions of an ``hour`` (its start) by campaign, and those of the same hour in the ``past``, whole hours; ``of`` says which,
    "of 4 weeks". ``seen`` is the share of the hour, 0 to 1, that must have arrived by now: go by the watermark, so that a source
    that stands still is no campaign's fault. A campaign that an hour does not name had none in it."""

    hour: int
    seen: float
    impressions: dict[Campaign, int]
    past: list[dict[Campaign, int]]
    of: str


@dataclass(frozen=True)
class _Gone:
    volume: Volume
    campaign: Campaign
    expected: float

    def __str__(self) -> str:
        at = f"{instant(self.volume.hour):%Y-%m-%dT%H:%MZ}"
        return (f"{self.campaign[1]} of {self.campaign[0]} has {self.volume.impressions.get(self.campaign, 0):,} impressions of {at} "
                f"where {self.expected:,.0f} were to be expected (this hour {self.volume.of})")


def judge(level: Level, flights: dict[str, int], volumes: list[Volume], minutes: int) -> Sample:
    """A campaign is gone where in one of the ``volumes`` it has less than ``level.share`` of what was to be expected, and that is at
    least ``level.expected`` impressions. ``flights``: when campaigns ended, by campaign_id; later none is expected.

    Volumes with fewer than three hours of past are left out; without any other it is unknown. ``minutes`` is the time since
    the last look. The value is the number of campaigns gone; the hours and advertisers touched are those of all of them.
    """
    known = [volume for volume in volumes if len(volume.past) >= LEAST_PAST]
    if not known:
        return unknown(level.name, f"no past to judge by: needs the same hour of {LEAST_PAST} weeks or days")
    gone = [found for volume in known for found in _gone(level, flights, volume)]
    if not gone:
        watched = {campaign for volume in known for campaign in volume.impressions}
        return at_look(level.name, True, minutes, 0.0, f"none of {len(watched):,} campaigns is gone")
    worst: dict[Campaign, _Gone] = {}
    for found in sorted(gone, key=lambda found: (-found.expected, found.campaign, found.volume.hour)):
        worst.setdefault(found.campaign, found)
    named = "; ".join(map(str, list(worst.values())[:_NAMED]))
    more = f"; and {len(worst) - _NAMED:,} more" if len(worst) > _NAMED else ""
    hours = sorted({found.volume.hour for found in gone})
    return at_look(level.name, False, minutes, float(len(worst)), named + more, since=instant(hours[0]),
                   advertisers=tuple(sorted({advertiser for advertiser, _ in worst})), hours=tuple(map(instant, hours)))


def _gone(level: Level, flights: dict[str, int], volume: Volume) -> Iterator[_Gone]:
    past, enough = volume.past, level.expected
    for campaign in past[0].keys() | set().union(*past[1:]):
        hours = sorted([hour.get(campaign, 0) for hour in past])
        # The lower quartile, of three or four hours the least: a campaign that was not there in one of four weeks may be off again.
        expected = hours[(len(hours) - 1) // 4] * volume.seen
        if expected < enough or volume.impressions.get(campaign, 0) >= level.share * expected or campaign[0].startswith(TEST_ADVERTISER):
            continue
        if campaign[1] in flights:
            expected *= min(1.0, (flights[campaign[1]] - volume.hour) / MICROS_PER_HOUR / volume.seen)
        if expected >= enough and volume.impressions.get(campaign, 0) < level.share * expected:
            yield _Gone(volume, campaign, expected)
