"""Thirty days of a business in good health, a look a minute by an injected clock: nothing alarms. The same days with faults: each is
found in its time by its own level, and by no other.

Four weeks of history go before, known by hours as a monitor that starts knows them. Traffic is Poisson by the hour of the day and of
the week with nights of a few events a minute, a holiday of half of it, campaigns that begin and that end; shares have a rhythm
and a drift of their own and differ by hour and by minute (beta). Looks that do not hold are counted, which is more than alerts.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import numpy as np
import pytest

from measurement.monitors import rates, slo, volume
from measurement.monitors.burn import burn
from measurement.monitors.history import History
from measurement.monitors.sample import Sample
from measurement.monitors.series import MINUTE, Series
from measurement.monitors.volume import Volume

SLO = slo.given(None)
# What is usually so of the events, or of the follow-ups of six hours.
USUAL = {"duplicates": 0.012, "late": 0.03, "restated": 0.02, "invalid": 0.08, "unjoined": 0.015, "rejected_undecodable": 0.0005,
         "rejected_missing_field": 0.001, "rejected_unknown_type": 0.0001, "rejected_bad_value": 0.002, "rejected_consent_denied": 0.04,
         "rejected_future": 0.0005, "rejected_too_late": 0.0003, "rejected_id_conflict": 0.0002, "rejected_orphan": 0.01}
BEFORE, DAYS = 28, 30
HOUR, DAY = 60, 1440  # in minutes, as all times here are, since the history's begin, a Monday's midnight
BEGIN = BEFORE * DAY
END = BEGIN + DAYS * DAY
EPOCH = round(datetime(2026, 2, 2, tzinfo=UTC).timestamp() * 1_000_000)
HOLIDAY = BEGIN + 17 * DAY
CAMPAIGNS = 200
EVERY = SLO.levels["volume"].every // MINUTE
LAG = 5  # minutes that the watermark is behind


class Business:
    """Parts and wholes of each level by minute, impressions of each campaign by five minutes."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)
        minute = np.arange(END)
        of_day = ((1 + np.cos(2 * np.pi * (minute / HOUR - 19) / 24)) / 2) ** 1.5 + 0.004  # least at 7
        of_week = np.where(minute // DAY % 7 < 5, 1, 0.7)
        by_hour = np.repeat(self.random.lognormal(0, 0.1, END // HOUR), HOUR)
        self.traffic = 800 * of_day * of_week * by_hour * np.where(minute // DAY == HOLIDAY // DAY, 0.5, 1)
        events = self.random.poisson(self.traffic)
        self.wholes = {name: events.copy() for name in USUAL}
        self.wholes["unjoined"] = self.random.binomial(events, 0.3)
        self.parts = {name: self.random.binomial(self.wholes[name], self._share(usual)) for name, usual in USUAL.items()}
        for counts in self.wholes, self.parts:  # of the last six hours, at each look
            counts["unjoined"] = np.convolve(counts["unjoined"], np.ones(6 * HOUR, int))[:END]
        self.flights: dict[str, int] = {}
        self._hours: dict[int, dict[volume.Campaign, int]] = {}
        self.impressions = self._campaigns()

    def _share(self, usual: float) -> np.ndarray:
        minute = np.arange(END)
        rhythm = 1 + 0.2 * np.sin(2 * np.pi * (minute / DAY + self.random.random()))
        drift = 1 + 0.3 * minute / END
        return usual * rhythm * drift * np.repeat(self._beta(usual, 0.12, END // HOUR), HOUR) * self._beta(usual, 0.15, END)

    def _beta(self, mean: float, deviation: float, n: int) -> np.ndarray:
        """Around 1, with so relative a standard deviation."""
        both = (1 - mean) / (mean * deviation**2) - 1
        return np.minimum(self.random.beta(mean * both, (1 - mean) * both, n) / mean, 1 / mean / 2)

    def _campaigns(self) -> np.ndarray:
        """By campaign and five minutes. Every tenth begins at some time, every tenth ends at some minute of the month, as is told."""
        zipf = 1 / np.arange(1, CAMPAIGNS + 1)
        slots = self.traffic.reshape(-1, EVERY).sum(1) * 0.6
        counts = self.random.poisson(zipf[:, None] / zipf.sum() * slots)
        for campaign in range(3, CAMPAIGNS, 10):
            counts[campaign, : self.random.integers(0, END) // EVERY] = 0
        for campaign in range(7, CAMPAIGNS, 10):
            end = int(self.random.integers(BEGIN, END))
            counts[campaign, -(-end // EVERY):] = 0
            counts[campaign, end // EVERY] = counts[campaign, end // EVERY] * (end % EVERY) // EVERY
            self.flights[f"c-{campaign}"] = EPOCH + end * MINUTE
        return counts

    def history(self) -> History:
        counted = History(tuple(USUAL))
        for name in USUAL:
            for hour in range(0, BEGIN, HOUR):
                counted.add(name, EPOCH + hour * MINUTE, int(self.parts[name][hour: hour + HOUR].sum()),
                            int(self.wholes[name][hour: hour + HOUR].sum()))
        return counted

    def volumes(self, now: int) -> list[Volume]:
        """This hour and the one before, which closes meanwhile."""
        return [self._volume(now // HOUR * HOUR - back, now) for back in (0, HOUR)]

    def _volume(self, hour: int, now: int) -> Volume:
        past = [self._hour(hour - weeks * 7 * DAY) for weeks in range(1, 5)]
        impressions = self._hour(hour) if now >= hour + HOUR else self._impressions(hour, now)
        return Volume(EPOCH + hour * MINUTE, min(max(now - hour - LAG, 0) / HOUR, 1.0), impressions, past, "of 4 weeks")

    def _hour(self, hour: int) -> dict[volume.Campaign, int]:
        if hour not in self._hours:
            self._hours[hour] = self._impressions(hour, hour + HOUR)
        return self._hours[hour]

    def _impressions(self, start: int, stop: int) -> dict[volume.Campaign, int]:
        counts = self.impressions[:, start // EVERY: stop // EVERY].sum(1).tolist()
        return {(f"adv-{c % 20}", f"c-{c}"): n for c, n in enumerate(counts) if n}


class Monitor:
    """Looks at the business each minute, as ``measurement monitor`` would."""

    def __init__(self, business: Business):
        self.business, self.counted = business, business.history()
        self.judged = Series(tuple(SLO.levels))
        self.wrong: set[str] = set()

    def take(self, minute: int) -> int:
        now = EPOCH + minute * MINUTE
        for name in USUAL:
            self.counted.add(name, now, int(self.business.parts[name][minute]), int(self.business.wholes[name][minute]))
        return now

    def look(self, minute: int) -> Iterator[tuple[Sample, bool]]:
        """Each level's sample, and whether an alert of it is open."""
        now = self.take(minute)
        samples = [rates.judge(SLO.levels[name], self.counted, now, 1) for name in USUAL]
        if minute % EVERY == 0:
            samples.append(volume.judge(SLO.levels["volume"], self.business.flights, self.business.volumes(minute), EVERY))
        for sample in samples:
            self.judged.add(sample.level, now, sample.good, sample.total)
            if sample.holds is False:
                self.wrong.add(sample.level)
            # Where nothing was ever wrong no budget burns.
            yield sample, sample.level in self.wrong and bool(burn(self.judged, SLO.levels[sample.level], SLO.windows, now).firing)


def test_a_level_is_simulated_for_each_that_is_judged_by_its_history():
    assert set(USUAL) == {name for name, level in SLO.levels.items() if level.z}


@pytest.mark.parametrize("seed", [1])
def test_a_quiet_month_raises_no_alarm(seed):
    monitor = Monitor(Business(seed))
    looks, told = Counter(), Counter()
    false, alerts = [], []
    for minute in range(BEGIN, END):
        for sample, open_ in monitor.look(minute):
            looks[sample.level] += 1
            told[sample.level] += sample.holds is not None
            if sample.holds is False:
                false.append(f"minute {minute - BEGIN}: {sample.level}: {sample.text}")
            if open_:
                alerts.append(sample.level)
    assert not alerts
    assert not false
    assert looks == {**dict.fromkeys(USUAL, DAYS * DAY), "volume": DAYS * DAY // EVERY}
    assert min(told[name] / looks[name] for name in looks) > 0.95


def resent(business: Business, start: int, stop: int) -> None:
    """A publisher sends everything twice."""
    _more(business, "duplicates", start, stop, 1.0)


def flooded(business: Business, start: int, stop: int) -> None:
    """Bytes that nobody can decode, two for five events."""
    _more(business, "rejected_undecodable", start, stop, 0.4)


def _more(business: Business, part: str, start: int, stop: int, share: float) -> None:
    more = (business.wholes[part][start:stop] * share).astype(int)
    business.parts[part][start:stop] += more
    for name in set(USUAL) - {"unjoined"}:
        business.wholes[name][start:stop] += more


def unscreened(business: Business, start: int, stop: int) -> None:
    """A list of networks and robots that is not loaded."""
    business.parts["invalid"][start:stop] = 0


def vanished(business: Business, start: int, stop: int) -> None:
    """The largest campaign."""
    business.impressions[0, start // EVERY: stop // EVERY] = 0


# Which level finds it; minutes until a look does not hold, and until an alert is open.
FAULTS: dict[Callable[[Business, int, int], None], tuple[str, int, int]] = {
    resent: ("duplicates", 2, 11),
    flooded: ("rejected_undecodable", 2, 11),
    unscreened: ("invalid", 11, 20),
    vanished: ("volume", 55, 60),  # after the rest of an hour that had some, and until 50 are to be expected
}


def test_each_fault_of_a_month_is_found_in_its_time_by_its_own_level_and_by_no_other():
    business = Business(2)
    began = {BEGIN + (6 + 6 * i) * DAY + 10 * HOUR + 20: fault for i, fault in enumerate(FAULTS)}
    for start, fault in began.items():
        fault(business, start, start + 2 * HOUR)
    monitor = Monitor(business)
    for minute in range(BEGIN, END):
        start = max((at for at in began if at - 2 * HOUR <= minute), default=None)
        if start is None or minute >= start + 6 * HOUR:
            monitor.take(minute)
            continue
        level, broken, alerted = FAULTS[began[start]]
        for sample, open_ in monitor.look(minute):
            if sample.level != level or minute < start:
                assert sample.holds is not False and (not open_ or sample.level != level), f"{minute - start}: {sample.level}: {sample.text}"
            elif minute < start + 2 * HOUR and sample.total:
                assert sample.holds is not True or minute - start < broken, f"{minute - start}: {sample.text}"
                assert open_ or minute - start < alerted, f"{minute - start}: {sample.text}"
            elif sample.total and minute >= start + 4 * HOUR:
                assert sample.holds, f"{minute - start}: {sample.text}"
    assert monitor.wrong == {level for level, _, _ in FAULTS.values()}
