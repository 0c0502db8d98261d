"""The stage that keeps absolute totals and publishes their revisions."""

import time

import numpy as np
import pyarrow as pa

from measurement.columnar import stored
from measurement.columnar.batch import NO_WATERMARK
from measurement.io.latency import carrying
from measurement.io.publication import ipc, of_revisions
from measurement.model.revisions import tick
from measurement.model.events import MICROS_PER_HOUR, MIN_TIME_MICROS, TEST_ADVERTISER
from measurement.model.tables import ARRIVALS, ATTRIBUTION, CREDITS, DELIVERY, INTAKE, INVALID_TRAFFIC, LEDGER, TOTALS
from measurement.state.totals import LEDGER_HORIZON, Revisions, TotalsShard
from measurement.transforms import hours
from measurement.transforms.config import RunConfig
from measurement.transforms.distribute import now_micros
from measurement.transforms.keyed import END_OF_STREAM, KeyedMachine


# Later than the timestamp of any element of an archive (measurement/io/pubsub/source.py), earlier than any event's time.
_FIRST_MOVE = MIN_TIME_MICROS - MICROS_PER_HOUR  # µs
_BY_HORIZON = (DELIVERY, INVALID_TRAFFIC, CREDITS, ATTRIBUTION)  # whose rows change no more when the horizons are behind them


class Totals(KeyedMachine):
    """(table or table/shard, Deltas) to (table, rows to append).

    The first change after a pause is published at once, and what follows when ``publish_seconds`` have passed since. Rows carry
    the receipts of the events that they are the first to count (measurement/io/latency.py), but for what comes from an archive.
    """

    _flushed: dict[tuple[str, str], float] = {}  # by (run, key), for all instances of a worker process: when last (s)

    stage = "totals"

    def __init__(self, config: RunConfig):
        super().__init__(config)
        self.flush_after = config.publish_seconds

    def machine(self, key):
        table = _table(key)
        counting = self._config.policy.counting
        # Delivery and credits change while a follow-up may still come for their hour: a late one, a join horizon behind it.
        delivery = counting.dedup_horizon + counting.join_horizon + MICROS_PER_HOUR
        horizon = delivery if table in _BY_HORIZON else max(delivery, LEDGER_HORIZON)
        return TotalsShard(len(table.texts), len(table.values), counting.allowed_lateness, horizon)

    def _awaits_rebuild(self, machine) -> bool:
        return self._config.rebuilding is not None and machine.watermark == NO_WATERMARK

    def next_due(self, machine):
        # The watermark's first move says that the archive has been read, by every stage before this one.
        return _FIRST_MOVE if self._awaits_rebuild(machine) else machine.next_due()

    def absorb(self, key, machine, deltas):
        published = self._published(_table(key), deltas, self._awaits_rebuild(machine))
        machine.absorb(published)
        if self._awaits_rebuild(machine):
            return
        if len(published) and len(deltas.receipts):
            machine.note(deltas.receipts)
        if self.flush_in(key) == 0:
            yield from self.flush(key, machine)

    def advance(self, key, machine, watermark):
        now = now_micros()
        if self._awaits_rebuild(machine):
            self._compare(key, machine)
        publications = machine.advance(watermark, tick(now, self._config.began))
        for revisions in publications:
            # Rows of other hours may wait for their flush, and the receipts with them.
            whole = revisions is publications[-1] and not machine.dirty
            yield self._rows(key, revisions, now, machine.take_receipts() if whole else None)
        if watermark == END_OF_STREAM:
            yield from self.flush(key, machine)

    def _published(self, table, deltas, in_archive: bool):
        """What of the changes is of hours that may be published (see Rebuilding)."""
        rebuilding = self._config.rebuilding
        if rebuilding is None:
            return deltas
        kept = np.ones(len(deltas), bool)
        # What is stored of the large tables' older hours is not known, and must not begin anew.
        if in_archive or rebuilding.publish_until is not None or table in _BY_HORIZON:
            kept &= deltas.hours >= rebuilding.first(table)
        if rebuilding.publish_until is not None:
            kept &= (deltas.hours < rebuilding.publish_until) & _told_by_archive(table, deltas)
        return deltas.take(np.flatnonzero(kept))

    def _compare(self, key, machine) -> None:
        """Holds what was rebuilt against what is stored."""
        rebuilding, table, shard = self._config.rebuilding, _table(key), key.partition("/")[2]
        first = rebuilding.first(table)
        # Older hours are where small tables go on from; of the others nothing older can change.
        since = first if table in _BY_HORIZON or rebuilding.publish_until is not None else None
        ends = rebuilding.stored.latest(table, None if since == NO_WATERMARK else since, rebuilding.publish_until)
        deltas, closed, apart = stored.of_ends(table, ends, self._config.rule_version)
        mine = np.ones(len(deltas), bool)
        if shard:
            mine &= deltas.shard(self._config.delivery_shards) == int(shard)
        if rebuilding.publish_until is not None:
            mine &= _told_by_archive(table, deltas)
        machine.rebuilt(deltas.take(np.flatnonzero(mine)), closed[mine], apart[mine], first)

    def flush_in(self, key):
        last = self._flushed.get((self._config.run, key))
        if last is None:
            return 0.0
        # By one clock for all keys: so what they publish goes through the engine, and to each sink, together.
        return max(0.0, (last // self.flush_after + 1) * self.flush_after - time.monotonic())

    def flush(self, key, machine):
        self._flushed[self._config.run, key] = time.monotonic()
        if self._awaits_rebuild(machine):
            return
        now = now_micros()
        revisions = machine.flush(tick(now, self._config.began))
        if revisions is not None and len(revisions):
            yield self._rows(key, revisions, now, machine.take_receipts())

    def _rows(self, key: str, revisions: Revisions, now: int, receipts: np.ndarray | None = None) -> tuple[str, bytes]:
        table = _table(key)
        if table is LEDGER:
            hours.tell(revisions)
        rows = of_revisions(table, revisions, self._config.generation, self._rules(table, revisions), now)
        return table.name, ipc(rows if receipts is None else carrying(rows, receipts))

    def _rules(self, table, revisions) -> str | pa.Array:
        """``rule_version`` of the rows. Of credits it names the rule that held for the advertiser at the conversion's time."""
        whole = self._config.rule_version
        if table not in (CREDITS, ATTRIBUTION):
            return whole
        advertisers = revisions.codes[:, [c.name for c in table.texts].index("advertiser_id")]
        used, number = np.unique(advertisers, return_inverse=True)
        names = [revisions.labels[c].removeprefix(TEST_ADVERTISER) for c in used.tolist()]
        rules, rule = self._config.policy.attribution.rules_for(names, number, revisions.hours)
        return pa.array([f"{whole} attribution-1 {r.version}" for r in rules]).take(pa.array(rule))


def _told_by_archive(table, deltas) -> np.ndarray:
    """Which rows (bool) a rebuild of some hours makes anew: what was delivered again is in the archive once or not, so how often
    an event was received, and was a duplicate, stays as the stream counted it."""
    if table is not LEDGER:
        return np.full(len(deltas), table not in (INTAKE, ARRIVALS))
    outcomes = deltas.codes[:, [c.name for c in table.texts].index("outcome")]
    again = [code for code, text in enumerate(deltas.labels) if text == "duplicate"]
    return ~np.isin(outcomes, again)


def _table(key: str):
    """The table of a key, which may name a shard of it."""
    return TOTALS[key.partition("/")[0]]
