"""The ledger balanced, hour by hour, against counts made by other code at other places.

Received at the source's edge (``intake``), decoded (``arrivals``), decided (``ledger``), shown (``delivery``, ``rejects``):
five tables written by four different counters. Each check names the hours where two of them disagree. The queries are
BigQuery's SQL, for either warehouse; ``query`` runs one and returns its rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from measurement.model.events import MICROS_PER_HOUR
from measurement.model.tables import RESOLVED

Query = Callable[[str], list[tuple]]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Check:
    """Two counts that must agree by key: ``left`` and ``right`` are queries of (key columns…, n), ``{settled}`` their
    limit of hours."""

    says: str
    key: tuple[str, ...]
    left: str
    right: str


CHECKS = (
    Check("decoded = in the ledger", ("window_start", "source", "event_type"),
          "SELECT window_start, source, event_type, sum(events) n FROM {arrivals} WHERE {settled} GROUP BY 1, 2, 3",
          "SELECT window_start, source, event_type, sum(events) n FROM {ledger} WHERE {settled} GROUP BY 1, 2, 3"),
    Check("impressions in the ledger = gross impressions delivered", ("window_start",),
          "SELECT window_start, sum(events) n FROM {ledger} WHERE event_type = 'impression' "
          "AND outcome IN ('counted', 'invalid_traffic') AND {settled} GROUP BY 1",
          "SELECT window_start, sum(gross_impressions) n FROM {delivery} WHERE {settled} GROUP BY 1"),
    Check("valid impressions in the ledger = impressions delivered", ("window_start",),
          "SELECT window_start, sum(events) n FROM {ledger} WHERE event_type = 'impression' AND outcome = 'counted' "
          "AND {settled} GROUP BY 1",
          "SELECT window_start, sum(impressions) n FROM {delivery} WHERE {settled} GROUP BY 1"),
    Check("rejected in the ledger = rows of rejects", ("window_start", "outcome"),
          "SELECT window_start, outcome, sum(events) n FROM {ledger} "
          "WHERE outcome NOT IN ('counted', 'invalid_traffic', 'duplicate') AND {settled} GROUP BY 1, 2",
          "SELECT window_start, reason, count(*) n FROM (SELECT timestamp_trunc(event_time, HOUR) AS window_start, reason "
          f"FROM {{rejects}} WHERE reason <> '{RESOLVED}') AS r WHERE {{settled}} GROUP BY 1, 2"),
)


@dataclass
class Result:
    """Totals, and per failed check the keys where it fails: (key values…, left, right)."""

    received: int
    outcomes: dict[str, int]
    state: str
    settled: int | None = None  # µs; of a run under way only the hours before it can be told
    failures: list[tuple[Check, list[tuple]]] = field(default_factory=list)
    unbalanced: list[str] = field(default_factory=list)

    @property
    def decided(self) -> int:
        return sum(self.outcomes.values())

    @property
    def under_way(self) -> bool:
        return self.state == "running"

    @property
    def holds(self) -> bool:
        return not self.failures and not self.unbalanced


def tables(dataset: str) -> dict[str, str]:
    """The names that queries have placeholders for."""
    return {name: f"`{dataset}.{name}_latest`" for name in ("arrivals", "delivery", "intake", "ledger", "rejects")}


def balance(query: Query, dataset: str, state: str, join_horizon: int) -> Result:
    """Compares what the tables hold. Of a run under way, the hours are compared that wait for nothing any more: their
    follow-ups' wait, the ``join_horizon`` (µs), is over."""
    names = tables(dataset)
    one = lambda sql: int(query(sql.format(**names))[0][0] or 0)  # noqa: E731
    outcomes = {o: int(n) for o, n in query("SELECT outcome, sum(events) FROM {ledger} GROUP BY 1 ORDER BY 1".format(**names))}
    result = Result(one("SELECT sum(events) FROM {intake}"), outcomes, state)
    if result.under_way:
        until = complete_until(query, dataset)
        if until is None:
            return result
        result.settled = micros(until) - join_horizon - MICROS_PER_HOUR
    else:
        _totals(one, result)
    limit = "TRUE" if result.settled is None else f"window_start < TIMESTAMP '{text(result.settled)}'"
    for check in CHECKS:
        left, right = ({tuple(key): int(n) for *key, n in query(sql.format(**names, settled=limit))} for sql in (check.left, check.right))
        wrong = [(*key, left.get(key, 0), right.get(key, 0)) for key in left.keys() | right.keys() if left.get(key, 0) != right.get(key, 0)]
        if wrong:
            result.failures.append((check, sorted(wrong, key=lambda row: [(v is not None, v) for v in row])))
    return result


def _totals(one, result: Result) -> None:
    arrived = one("SELECT sum(events) FROM {arrivals}")
    if result.received != arrived:
        result.unbalanced.append(f"received at the edge {result.received:,}, decoded {arrived:,}")
    if result.received != result.decided:
        result.unbalanced.append(f"received at the edge {result.received:,}, in the ledger {result.decided:,}")
    clicked = one("SELECT sum(events) FROM {ledger} WHERE event_type = 'click' AND outcome = 'counted'")
    delivered = one("SELECT sum(clicks) FROM {delivery}")
    if clicked != delivered:
        result.unbalanced.append(f"clicks counted in the ledger {clicked:,}, delivered {delivered:,}")


def complete_until(query: Query, dataset: str) -> datetime | None:
    """The time before which every hour is closed; None if none is."""
    [(hour,)] = query("SELECT max(window_start) FROM {delivery} WHERE status <> 'provisional'".format(**tables(dataset)))
    return None if hour is None else hour + timedelta(hours=1)


def micros(time: datetime) -> int:
    return (time.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)


def text(at: int) -> str:
    """A time (µs) as a TIMESTAMP literal's text."""
    return (_EPOCH + timedelta(microseconds=at)).strftime("%Y-%m-%d %H:%M:%S+00")
