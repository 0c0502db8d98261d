"""Attribution's rows where figures of few conversions are withheld: the published revisions read, and their leaves as rows."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from measurement.exports.request import DAY, Grain, Request
from measurement.exports.small_cells import CURRENCY, LEVELS, OTHER, Entry, Leaf, at_close, by_period, leaves, periods, withheld
from measurement.exports.source import Moment, Source
from measurement.model.revisions import GENERATION_BITS
from measurement.model.tables import ATTRIBUTION
from measurement.monitors.ledger import micros

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AT_LEVEL = [(level, column, at) for level, some in enumerate(LEVELS) for at, column in enumerate(some)]


def month(at: datetime) -> datetime:
    """A period begins in the month that it ends in: from here on attribution is read, whatever the range."""
    return at.replace(day=1, hour=0)


def rows(source: Source, request: Request, moment: Moment) -> tuple[list[dict], datetime | None]:
    """Rows of the export's columns, and until when what is in them is told (None: nothing is).

    The row of an hour stands in the exports of that hour. One of a period, which may have begun earlier, stands in those whose
    range the period ends in, so that files of ranges that follow each other have each once.
    """
    begin, end = month(request.start), _next_day(request.stop)
    published = source.published(ATTRIBUTION, request.advertiser, begin, end, moment.as_of)
    days = pc.floor_temporal(published["window_start"], unit="day")

    def entries_of(day: datetime) -> list[Entry]:  # made again where they are needed again: a month of them would be much memory
        return _entries(published.filter(pc.equal(days, pa.scalar(day, days.type))), day, moment)

    closed = [day for day in _days(begin, end) if _told_of(day, moment)]
    made, until = [], None
    for start, stop in periods(((micros(day), _sums(entries_of(day))) for day in closed), request.small_cells):
        if _at(stop) <= request.start:
            continue
        inside = [e for day in closed if start <= micros(day) < stop for e in entries_of(day)]
        of_hours = leaves(start, stop, inside, request.small_cells)
        of_range = of_hours if request.grain is Grain.hour else by_period(of_hours, start, stop)
        made += [row for leaf in of_range if _inside(leaf, request) for row in _rows(leaf, request.advertiser)]
        until = min(_at(stop), request.stop)
    return made, until


def _told_of(day: datetime, moment: Moment) -> bool:
    """Whether it has closed, and not before the job began: what is found of such a day comes later, or never."""
    began = moment.began(f"{day:%Y-%m}")
    return moment.settled is not None and day + DAY <= moment.settled and began is not None and began <= day


def _entries(rows: pa.Table, day: datetime, moment: Moment) -> list[Entry]:
    """A closed day's. It is as it was at its close in what the generation that closed it, or one before it, published as final:
    that never changes, while all else is a change that came later."""
    closer = moment.closed_by(day + DAY)
    return [Entry((*(tuple(row[c] for c in level) for level in LEVELS), (micros(row["window_start"]),)), row["model"], row["conversions"],
                  row["value_micros"], row["revision"], micros(row["published_at"]),
                  row["status"] == "final" and row["revision"] >> GENERATION_BITS <= closer, row["restated_because"], row["rule_version"])
            for row in rows.to_pylist()]


def _sums(entries: list[Entry]) -> dict[str, Decimal]:
    """Each model's conversions at the close."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for entry in at_close(entries).values():
        sums[entry.model] += entry.conversions
    return sums


def _days(begin: datetime, end: datetime) -> Iterator[datetime]:
    while begin < end:
        yield begin
        begin += DAY


def _inside(leaf: Leaf, request: Request) -> bool:
    of_hour = request.grain is Grain.hour and leaf.path[-1] is not OTHER
    return _at(leaf.stop) <= request.stop and request.start < _at(leaf.stop) and (not of_hour or request.start <= _at(leaf.start))


def _rows(leaf: Leaf, advertiser: str) -> Iterator[dict]:
    dimensions = {column: None if leaf.path[level] is OTHER else leaf.path[level][at] for level, column, at in _AT_LEVEL}
    if leaf.path[CURRENCY] is OTHER and len(leaf.currencies) == 1:
        [dimensions["currency"]] = leaf.currencies
    priced = leaf.path[CURRENCY] is not OTHER or len(leaf.currencies) <= 1  # values of several currencies have no sum
    for model, (conversions, value) in leaf.told.items():
        if not conversions and not leaf.restated:
            continue
        yield dimensions | {
            "window_start": _at(leaf.start), "window_end": _at(leaf.stop), "advertiser_id": advertiser, "model": model,
            "conversions": None if leaf.hidden else conversions, "value_micros": value if priced and not leaf.hidden else None,
            "status": "restated" if leaf.restated else "final", "restated_because": ", ".join(sorted(leaf.because)) or None,
            "rule_version": ", ".join(sorted(leaf.rules)), "revision": leaf.revision, "published_at": _at(leaf.published),
            "withheld": withheld(leaf)}


def _next_day(at: datetime) -> datetime:
    return at if at.hour == 0 else at.replace(hour=0) + DAY


def _at(time: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time)
