"""What the monitor asks of the tables, in BigQuery's SQL, for either warehouse. Each reads what is new, or few hours. Times are µs."""

from collections.abc import Callable
from datetime import datetime

from measurement.model.events import TEST_ADVERTISER
from measurement.model.sql import standing
from measurement.model.tables import ARRIVALS, ATTRIBUTION, AUDITS, DELIVERY, LATENCY, LEDGER, TABLES, Table
from measurement.monitors.books import Row
from measurement.monitors.ledger import micros, text
from measurement.monitors.probe import ADVERTISER, FIGURES

Query = Callable[[str], list[tuple]]


def ledger_since(query: Query, dataset: str, published: int) -> list[Row]:
    """The ledger's rows as they stand, of those keys that were published since."""
    rows = query(_since("window_start, source, event_type, outcome, events, status, restated_because", dataset, LEDGER, published))
    return [Row(_at(hour), source, kind, outcome, int(n), status, because, revision, micros(at))
            for hour, source, kind, outcome, n, status, because, revision, at in rows]


def arrivals_since(query: Query, dataset: str, published: int) -> list[Row]:
    rows = query(_since("window_start, source, event_type, events", dataset, ARRIVALS, published))
    return [Row(_at(hour), source, kind, None, int(n), None, None, revision, micros(at)) for hour, source, kind, n, revision, at in rows]


def audits_since(query: Query, dataset: str, published: int) -> list[tuple]:
    """(publisher, source, minute, events, state, sent_at, revision, published_at), times in µs."""
    rows = query(_since("publisher, source, minute, events, state, sent_at", dataset, AUDITS, published))
    return [(publisher, source, _at(minute), int(n), state, micros(sent), revision, micros(at))
            for publisher, source, minute, n, state, sent, revision, at in rows]


def latency_since(query: Query, dataset: str, published: int) -> list[tuple]:
    """(sink, publication, upper bound in ms or None, events, published_at in µs); of a publication written twice the last."""
    rows = query(_since("sink, publication, at_most_ms, events", dataset, LATENCY, published))
    return [(sink, publication, None if bound is None else int(bound), int(n), micros(at)) for sink, publication, bound, n, _, at in rows]


def _since(columns: str, dataset: str, table: Table, published: int) -> str:
    """The rows that were published since as they stand; what was published before is known."""
    return _standing(f"{columns}, revision, published_at", dataset, table, f"published_at >= {_literal(published)}")


def _standing(columns: str, dataset: str, table: Table, where: str) -> str:
    """The rows that ``NAME_latest`` shows of keys of which ``where`` holds; a condition outside the view would be one of all rows."""
    return f"SELECT {columns} FROM `{dataset}.{table.name}` WHERE {where} {standing(table)}"


def last_delivered(query: Query, dataset: str, since: int) -> int | None:
    """The latest hour from ``since`` on of which delivery has closed rows."""
    [(hour,)] = query(f"SELECT max(window_start) FROM `{dataset}.delivery` WHERE window_start >= {_literal(since)} AND status <> 'provisional'")
    return _at(hour)


def probed(dataset: str, table: str, since: int) -> str:
    """The query of the probe's rows in ``table`` of hours from ``since`` on."""
    keys = "campaign_id, model" if table == ATTRIBUTION.name else "campaign_id"
    return _standing(f"{keys}, {', '.join(FIGURES[table])}", dataset, TABLES[table],
                     f"advertiser_id = '{ADVERTISER}' AND campaign_id IS NOT NULL AND window_start >= {_literal(since)}")


def impressions(query: Query, dataset: str, hours: list[int]) -> dict[int, dict[tuple[str, str], int]]:
    """Gross impressions of customers in some hours, by (advertiser_id, campaign_id)."""
    found: dict[int, dict[tuple[str, str], int]] = {hour: {} for hour in hours}
    rows = _standing("window_start, advertiser_id, campaign_id, gross_impressions", dataset, DELIVERY,
                     f"window_start IN ({', '.join(map(_literal, hours))}) AND NOT starts_with(advertiser_id, '{TEST_ADVERTISER}')")
    rows = query(f"SELECT window_start, advertiser_id, campaign_id, sum(gross_impressions) AS n FROM ({rows}) AS hourly GROUP BY 1, 2, 3")
    for hour, advertiser, campaign, n in rows:
        found[_at(hour)][advertiser, campaign] = int(n)
    return found


def past(query: Query, dataset: str, since: int, until: int, grain: str) -> list[tuple]:
    """(level, time in µs, good, total, part, whole) of table ``sla`` between the two, summed by MINUTE or HOUR."""
    rows = query(f"SELECT level, timestamp_trunc(measured_at, {grain}) AS slot, sum(good) AS good, sum(total) AS total, sum(part) AS part, "
                 f"sum(whole) AS whole FROM (SELECT DISTINCT level, measured_at, good, total, part, whole FROM `{dataset}.sla` "
                 f"WHERE measured_at >= {_literal(since)} AND measured_at < {_literal(until)}) AS looks GROUP BY 1, 2")
    return [(level, _at(at), *map(int, sums)) for level, at, *sums in rows]


def last_look(query: Query, dataset: str) -> list[tuple]:
    """(level, measured_at in µs, state, value, target, budget_spent, firing, since in µs, text, advertisers, hours) of each level."""
    rows = query(f"SELECT level, measured_at, state, value, target, budget_spent, firing, since, text, advertisers, hours FROM `{dataset}.sla_latest`")
    return [(level, _at(at), state, value, target, spent, firing, _at(since), *rest) for level, at, state, value, target, spent, firing, since, *rest in rows]


def _at(time: datetime | None) -> int | None:
    return None if time is None else micros(time)


def _literal(at: int) -> str:
    return f"TIMESTAMP '{text(at)}'"
