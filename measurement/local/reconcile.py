"""`measurement reconcile`: the ledger balanced, hour by hour, against counts made by other code at other places.

Received at the source's edge (``intake``), decoded (``arrivals``), decided (``ledger``), shown (``delivery``, ``rejects``):
five tables written by four different counters. Each check names the hours where two of them disagree.
"""

from dataclasses import dataclass, field

from measurement.local.warehouse import RESOLVED, Warehouse


@dataclass(frozen=True)
class Check:
    """Two counts that must agree by key: ``left`` and ``right`` are queries of (key columns…, n)."""

    says: str
    key: tuple[str, ...]
    left: str
    right: str


CHECKS = (
    Check("decoded = in the ledger", ("window_start", "source", "event_type"),
          "SELECT window_start, source, event_type, sum(events) n FROM arrivals_latest GROUP BY ALL",
          "SELECT window_start, source, event_type, sum(events) n FROM ledger_latest GROUP BY ALL"),
    Check("impressions in the ledger = gross impressions delivered", ("window_start",),
          "SELECT window_start, sum(events) n FROM ledger_latest WHERE event_type = 'impression' "
          "AND outcome IN ('counted', 'invalid_traffic') GROUP BY ALL",
          "SELECT window_start, sum(gross_impressions) n FROM delivery_latest GROUP BY ALL"),
    Check("valid impressions in the ledger = impressions delivered", ("window_start",),
          "SELECT window_start, sum(events) n FROM ledger_latest WHERE event_type = 'impression' AND outcome = 'counted' GROUP BY ALL",
          "SELECT window_start, sum(impressions) n FROM delivery_latest GROUP BY ALL"),
    Check("rejected in the ledger = rows of rejects", ("window_start", "outcome"),
          "SELECT window_start, outcome, sum(events) n FROM ledger_latest "
          "WHERE outcome NOT IN ('counted', 'invalid_traffic', 'duplicate') GROUP BY ALL",
          "SELECT date_trunc('hour', event_time) window_start, reason AS outcome, count(*) n FROM rejects_latest "
          f"WHERE reason <> '{RESOLVED}' GROUP BY ALL"),
)


@dataclass
class Result:
    """Totals, and per failed check the keys where it fails: (key values…, left, right)."""

    received: int
    outcomes: dict[str, int]
    state: str
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


def reconcile(warehouse: Warehouse) -> Result:
    """Compares what the warehouse holds. A run that is under way is only told of: its counts are not all there yet."""
    with warehouse.read() as db:
        state = warehouse.run_state(db)
        one = lambda sql: int(db.execute(sql).fetchone()[0] or 0)  # noqa: E731
        outcomes = dict(db.execute("SELECT outcome, sum(events)::BIGINT FROM ledger_latest GROUP BY 1 ORDER BY 1").fetchall())
        result = Result(one("SELECT sum(events) FROM intake_latest"), outcomes, state)
        if result.under_way:
            return result
        if state != "complete":
            result.unbalanced.append(f"the last run {'failed' if state == 'failed' else 'was interrupted'}: run it again")
        arrived = one("SELECT sum(events) FROM arrivals_latest")
        if result.received != arrived:
            result.unbalanced.append(f"received at the edge {result.received:,}, decoded {arrived:,}")
        if result.received != result.decided:
            result.unbalanced.append(f"received at the edge {result.received:,}, in the ledger {result.decided:,}")
        clicked = one("SELECT sum(events) FROM ledger_latest WHERE event_type = 'click' AND outcome = 'counted'")
        delivered = one("SELECT sum(clicks) FROM delivery_latest")
        if clicked != delivered:
            result.unbalanced.append(f"clicks counted in the ledger {clicked:,}, delivered {delivered:,}")
        for check in CHECKS:
            on = " AND ".join(f"l.{k} IS NOT DISTINCT FROM r.{k}" for k in check.key)
            keys = ", ".join(f"CASE WHEN l.n IS NULL THEN r.{k} ELSE l.{k} END" for k in check.key)
            wrong = db.execute(
                f"SELECT {keys}, coalesce(l.n, 0)::BIGINT, coalesce(r.n, 0)::BIGINT FROM ({check.left}) l FULL JOIN ({check.right}) r "
                f"ON {on} WHERE coalesce(l.n, 0) <> coalesce(r.n, 0) ORDER BY 1").fetchall()
            if wrong:
                result.failures.append((check, wrong))
    return result
