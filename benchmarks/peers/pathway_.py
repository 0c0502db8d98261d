"""Pathway: two groupings of a live table, by event_id and by the row; its engine keeps both up to date, in two threads.

It has no connector for Avro, so its Python connector reads the files, an event a call. Grouping keeps every id, as no peer is
asked to forget. Nothing is persisted: a failure begins anew. Rows come as they change, once a second, and the last of each is
the result.
"""

import os

import fastavro

from benchmarks.peers.plain_loop import READER
from benchmarks.peers.task import MICROS_PER_HOUR, arguments, avro_files, write

THREADS = 2


def main() -> None:
    log, out, _ = arguments()
    os.environ.setdefault("PATHWAY_THREADS", str(THREADS))
    import pathway as pw

    class Event(pw.Schema):
        event_id: str
        event_type: str
        hour: int
        campaign_id: str | None
        price_micros: int

    class Log(pw.io.python.ConnectorSubject):
        def run(self):
            for path in avro_files(log):
                with path.open("rb") as file:
                    for event in fastavro.reader(file, READER):
                        at = event["event_time"]
                        self.next(event_id=event["event_id"], event_type=event["event_type"], hour=at - at % MICROS_PER_HOUR,
                                  campaign_id=event["campaign_id"], price_micros=event["price_micros"] or 0)

    events = pw.io.python.read(Log(), schema=Event, autocommit_duration_ms=1_000)
    distinct = events.groupby(events.event_id).reduce(
        **{name: pw.reducers.any(events[name]) for name in ("event_type", "hour", "campaign_id", "price_micros")})
    key = distinct.hour, distinct.campaign_id, distinct.event_type
    totals = distinct.groupby(*key).reduce(*key, events=pw.reducers.count(), price_micros=pw.reducers.sum(distinct.price_micros))
    rows = {}

    def changed(key, row, time, is_addition):
        if is_addition:
            rows[key] = tuple(row.values())

    pw.io.subscribe(totals, on_change=changed)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    write(rows.values(), out)


if __name__ == "__main__":
    main()
