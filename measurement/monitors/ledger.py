"""The ledger balanced, hour by hour, against counts made by other code at other places.

Received at the source's edge (``intake``), decoded (``arrivals``), decided (``ledger``), shown (``delivery``, ``rejects``):
five tables written by four different counters. The conversions that the ledger counts are then followed into
``conversion_credits``, each one whole, and its sums into ``attribution``. Each check names the hours where two of them
disagree. The queries are BigQuery's SQL, for either warehouse; ``query`` runs one and returns its rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from measurement.model.events import MICROS_PER_HOUR
from measurement.model.tables import ATTRIBUTION, DELIVERY, RESOLVED, TABLES
from measurement.monitors.times import instant

Query = Callable[[str], list[tuple]]


@dataclass(frozen=True)
class Check:
    """Two figures that must agree by key, with ``{settled}`` as the queries' limit of hours and ``{kept}`` as what holds of a key
    whose rejects are all kept: ``left`` and ``right`` are queries of (key columns…, n), or ``wrong`` is one of (key columns…,
    left, right) for the keys that disagree, where there may be more keys than anybody wants to fetch."""

    says: str
    key: tuple[str, ...]
    left: str = ""
    right: str = ""
    wrong: str = ""


# Of each conversion and model what its rows sum to. One event_id may be a conversion of two advertisers (a probe's stand
# under one of their own), and once more when the first has been forgotten.
_CONVERSION = "window_start, advertiser_id, conversion_id, conversion_time"
_CREDITED = f"""(
  SELECT {_CONVERSION}, model, sum(credit) AS credit, sum(value_micros) AS value_micros, max(abs(credit)) AS most
  FROM (SELECT *, timestamp_trunc(conversion_time, HOUR) AS window_start FROM {{conversion_credits}}) AS c
  WHERE {{settled}} GROUP BY {_CONVERSION}, model) AS credited"""
_BY = ", ".join(c.name for c in ATTRIBUTION.key)
_ROW = tuple(c.name for c in DELIVERY.key)


def _summed(sum_: str, of: str) -> Check:
    """A sum in ``attribution`` held against what it is the sum ``of`` in ``conversion_credits``.

    A sum's alias is never the summed column's name: BigQuery would take HAVING's sum for a sum of sums.
    """
    return Check(f"sum of {of} in conversion_credits = {sum_} in attribution", tuple(c.name for c in ATTRIBUTION.key), wrong=f"""
      SELECT {_BY}, sum(credited) AS earned, sum(attributed) AS shown FROM (
        SELECT {_BY}, {of} AS credited, 0 AS attributed
        FROM (SELECT *, timestamp_trunc(conversion_time, HOUR) AS window_start FROM {{conversion_credits}}) AS c
        UNION ALL SELECT {_BY}, 0 AS credited, {sum_} AS attributed FROM {{attribution}}) AS b
      WHERE {{settled}} GROUP BY {_BY} HAVING sum(credited) <> sum(attributed)""")


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
    Check("gross - net impressions = invalid impressions by reason", _ROW, wrong=f"""
          SELECT {', '.join(_ROW)}, sum(gap) AS left_out, sum(explained) AS told FROM (
            SELECT {', '.join(_ROW)}, gross_impressions - impressions AS gap, 0 AS explained FROM {{delivery}}
            UNION ALL SELECT {', '.join(_ROW)}, 0 AS gap, events AS explained FROM {{invalid_traffic}}
            WHERE event_type = 'impression') AS b
          WHERE {{settled}} GROUP BY {', '.join(_ROW)} HAVING sum(gap) <> sum(explained)"""),
    Check("invalid impressions and conversions in the ledger = in invalid_traffic", ("window_start", "event_type"),
          "SELECT window_start, event_type, sum(events) n FROM {ledger} WHERE event_type IN ('impression', 'conversion') "
          "AND outcome = 'invalid_traffic' AND {settled} GROUP BY 1, 2",
          "SELECT window_start, event_type, sum(events) n FROM {invalid_traffic} WHERE event_type IN ('impression', 'conversion') "
          "AND {settled} GROUP BY 1, 2"),
    # Of an hour whose rejects may have expired there are at most as many as the ledger says.
    Check("rejected in the ledger = rows of rejects", ("window_start", "outcome"), wrong=f"""
          SELECT window_start, outcome, sum(entered) AS refused, sum(shown) AS there FROM (
            SELECT window_start, outcome, events AS entered, 0 AS shown FROM {{ledger}}
            WHERE outcome NOT IN ('counted', 'invalid_traffic', 'duplicate')
            UNION ALL SELECT timestamp_trunc(event_time, HOUR) AS window_start, reason AS outcome, 0 AS entered, 1 AS shown
            FROM {{rejects}} WHERE reason <> '{RESOLVED}') AS b
          WHERE {{settled}} GROUP BY window_start, outcome
          HAVING sum(entered) < sum(shown) OR (sum(entered) > sum(shown) AND {{kept}})"""),
    Check("valid conversions in the ledger = conversions credited", ("window_start",),
          "SELECT window_start, sum(events) n FROM {ledger} WHERE event_type = 'conversion' AND outcome = 'counted' "
          "AND {settled} GROUP BY 1",
          f"SELECT window_start, count(*) n FROM (SELECT {_CONVERSION} FROM {_CREDITED} "
          f"WHERE most <> 0 GROUP BY {_CONVERSION}) AS standing GROUP BY 1"),
    # What no longer stands, a conversion or a model of it, has rows of zeros.
    Check("of each conversion and model: 1, or 0 if it no longer stands = sum of credit",
          ("window_start", "advertiser_id", "conversion_id", "model"), wrong=f"""
          SELECT window_start, advertiser_id, conversion_id, model, CASE WHEN most = 0 THEN 0 ELSE 1 END AS due, credit
          FROM {_CREDITED} WHERE credit <> CASE WHEN most = 0 THEN 0 ELSE 1 END"""),
    Check("of each conversion and model that no longer stands: 0 = sum of value_micros",
          ("window_start", "advertiser_id", "conversion_id", "model"), wrong=f"""
          SELECT window_start, advertiser_id, conversion_id, model, 0 AS due, value_micros
          FROM {_CREDITED} WHERE most = 0 AND value_micros <> 0"""),
    Check("of each conversion: least = most value that its models credit", ("window_start", "advertiser_id", "conversion_id"), wrong=f"""
          SELECT window_start, advertiser_id, conversion_id, min(value_micros) AS least, max(value_micros) AS highest
          FROM {_CREDITED} WHERE most <> 0 GROUP BY {_CONVERSION} HAVING min(value_micros) <> max(value_micros)"""),
    _summed("conversions", "credit"),
    _summed("value_micros", "value_micros"),
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
    return {name: f"`{dataset}.{name}_latest`" for name in TABLES}


def balance(query: Query, dataset: str, state: str, join_horizon: int, rejects_since: int | None = None) -> Result:
    """Compares what the tables hold. Of a run under way, the hours are compared that wait for nothing any more: their
    follow-ups' wait, the ``join_horizon`` (µs), is over. Rejects written before ``rejects_since`` (µs) are kept no more."""
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
    [(began,)] = query("SELECT min(received_hour) FROM {intake}".format(**names))
    kept = "TRUE" if rejects_since is None or began is None or micros(began) >= rejects_since else _kept(rejects_since)
    for check in CHECKS:
        if wrong := _wrong(check, lambda sql: query(sql.format(**names, settled=limit, kept=kept))):
            result.failures.append((check, sorted(wrong, key=lambda row: [(v is not None, v) for v in row])))
    return result


def _kept(since: int) -> str:
    """What holds of the hours and outcomes of which every reject is kept. An event is received after its hour began, but for
    ``future``, whose clock may be days ahead, and but for ten minutes."""
    return f"window_start >= TIMESTAMP '{text(since + MICROS_PER_HOUR)}' AND outcome <> 'future'"


def _wrong(check: Check, query: Query) -> list[tuple]:
    """(key values…, left, right) where the two disagree."""
    if check.wrong:
        return [(*key, number(left), number(right)) for *key, left, right in query(check.wrong)]
    left, right = ({tuple(key): number(n) for *key, n in query(sql)} for sql in (check.left, check.right))
    return [(*key, left.get(key, 0), right.get(key, 0)) for key in left.keys() | right.keys() if left.get(key, 0) != right.get(key, 0)]


def number(n: int | Decimal) -> int | Decimal:
    """A sum, which a warehouse may give as a decimal of whatever digits."""
    return int(n) if n == int(n) else Decimal(n)


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
    # A follow-up's hour is its own in the ledger, and its impression's where it is counted or left out.
    invalid = one("SELECT sum(events) FROM {ledger} WHERE outcome = 'invalid_traffic'")
    explained = one("SELECT sum(events) FROM {invalid_traffic}")
    if invalid != explained:
        result.unbalanced.append(f"invalid in the ledger {invalid:,}, in invalid_traffic {explained:,}")


def complete_until(query: Query, dataset: str) -> datetime | None:
    """The time before which every hour is closed; None if none is."""
    [(hour,)] = query("SELECT max(window_start) FROM {delivery} WHERE status <> 'provisional'".format(**tables(dataset)))
    return None if hour is None else hour + timedelta(hours=1)


def micros(time: datetime) -> int:
    return (time.astimezone(UTC) - instant(0)) // timedelta(microseconds=1)


def text(at: int) -> str:
    """A time (µs) as a TIMESTAMP literal's text."""
    return instant(at).strftime("%Y-%m-%d %H:%M:%S+00")
