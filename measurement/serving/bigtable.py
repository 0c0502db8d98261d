"""Reports from Bigtable: each range of an advertiser or campaign one scan, its values taken apart without Arrow, which costs more
than the rows where they are a few hundred."""

import heapq
import struct
import time
from collections.abc import Callable, Iterable
from operator import itemgetter

from measurement.exports.source import Source
from measurement.io import bigtable_keys as keys
from measurement.io.bigtable_read import BigtableReader
from measurement.io.bigtable_read import Row as Cell
from measurement.io.bigtable_service import LAYOUT, MICROS_A_REVISION, SERVED, numbers, words
from measurement.io.endpoints import Endpoints
from measurement.io.retry import Patience, SinkError
from measurement.model.events import MICROS_PER_HOUR
from measurement.model.tables import DELIVERY, Table
from measurement.model.views.pacing import PACING
from measurement.serving.fresh import Fresh
from measurement.serving.positions import in_advertiser, in_campaign
from measurement.serving.reports import Advertiser, Newest, NotServed, Reports, Row, Scope, Unavailable, is_probe

_PATIENCE_SECONDS = 3
# The newest closed hour is the same for all, give or take the seconds that a publication takes; so a few advertisers tell it,
# those who had the newest rows when all were last looked through. Probes are among them.
_ASKED = 8
_LOOKED_THROUGH_SECONDS = 60


class BigtableReports:
    """``apart``: what has the tables that Bigtable does not serve, if anything (measurement/serving/warehouses.py)."""

    short = frozenset(SERVED)

    def __init__(self, endpoints: Endpoints, instance: str, apart: Reports | None = None,
                 clock: Callable[[], float] = time.monotonic):
        self._reader = BigtableReader(endpoints, instance, Patience(_PATIENCE_SECONDS))
        self._apart = apart
        self._decoders = {name: Decoder(table) for name, table in SERVED.items()}
        self._fronts = {name: Fresh(lambda table=table: self._front(table), _LOOKED_THROUGH_SECONDS, clock)
                        for name, table in SERVED.items()}

    def rows(self, scope: Scope, after: bytes | None, most: int) -> list[Row]:
        if scope.table.name not in SERVED:
            return self._elsewhere(scope.table.name).rows(scope, after, most)
        advertiser = keys.text(scope.advertiser_id)
        campaign = None if scope.campaign_id is None else keys.text(scope.campaign_id)
        first, end = keys.hours_of(advertiser, scope.start, scope.stop, campaign)
        if after is not None:
            last = in_advertiser(advertiser, after) if campaign is None else in_campaign(advertiser, campaign, after)
            first = max(first, last + b"\0")  # the first key behind it
        return self._decoded(scope.table, first, end, most)

    def newest(self, table: Table) -> Newest | None:
        if table.name not in SERVED:
            return self._elsewhere(table.name).newest(table)
        names = [c.name for c in table.columns]
        hour, published = names.index("window_start"), names.index("published_at")
        front = heapq.nlargest(_ASKED, self._fronts[table.name].get(), key=lambda row: (row[hour], row[published]))
        at = names.index("advertiser_id")
        closed = [row for newest in front for row in self._decoded(table, *_all_hours(newest[at]), 1, _closed(table))]
        if not closed:
            return None
        newest = max((row[hour], row[published]) for row in closed)
        return Newest(newest[0] + MICROS_PER_HOUR, newest[1])

    def known(self, advertiser_id: str) -> bool:
        return any(self._decoded(table, *_all_hours(advertiser_id), 1) for table in SERVED.values())

    def advertisers(self) -> list[Advertiser]:
        names = [c.name for c in DELIVERY.columns]
        hour, at, published = (names.index(name) for name in ("window_start", "advertiser_id", "published_at"))
        everyone = (Advertiser(row[at], row[hour], row[published]) for row in self._fronts[DELIVERY.name].get())
        return sorted((a for a in everyone if not is_probe(a.advertiser_id)), key=lambda a: a.advertiser_id)

    def pacing(self, advertiser_id: str | None, most: int) -> list[Row]:
        return self._elsewhere(PACING.name).pacing(advertiser_id, most)

    def source(self) -> Source:
        return self._elsewhere("exports").source()

    def check(self) -> None:
        for table in SERVED.values():
            self._decoded(table, b"\0", b"", 1)

    def close(self) -> None:
        self._reader.close()
        if self._apart is not None:
            self._apart.close()

    def _elsewhere(self, what: str) -> Reports:
        if self._apart is None:
            raise NotServed(what)
        return self._apart

    def _front(self, table: Table) -> list[Row]:
        """Everyone's first row: of their newest hour."""
        try:
            elements = list(self._reader.advertisers(table.name))
        except SinkError as error:
            raise Unavailable(str(error)) from error
        prefixes = [element + keys.BY_HOUR for element in elements]
        return [row for prefix in prefixes for row in self._decoded(table, prefix, keys.behind(prefix), 1)]

    def _decoded(self, table: Table, first: bytes, end: bytes, most: int, value: bytes | None = None) -> list[Row]:
        try:
            return self._decoders[table.name].rows(self._reader.scan(table.name, first, end, most, value))
        except SinkError as error:
            raise Unavailable(str(error)) from error


def _all_hours(advertiser_id: str) -> tuple[bytes, bytes]:
    prefix = keys.text(advertiser_id) + keys.BY_HOUR
    return prefix, keys.behind(prefix)


def _closed(table: Table) -> bytes:
    """What the value of a row whose hour has closed matches: behind the numbers another text than ``provisional``."""
    return rb"\C{%d}(?:final|restated)\x00\C*" % (1 + 8 * len(numbers(table)))


class Decoder:
    """Rows of a served table from Bigtable's cells. Rows of a range begin alike up to their hour and share their dimensions, so each
    distinct beginning and text is taken apart once a call."""

    def __init__(self, table: Table):
        self._name = table.name
        self._head = struct.Struct(f">B{len(numbers(table))}q")
        in_value = ["layout", *(c.name for c in numbers(table))]
        made = [*in_value, "window_start", *(c.name for part in (table.texts, words(table)) for c in part), "revision"]
        self._in_order = itemgetter(*(made.index(c.name) for c in table.columns))
        self._words = len(words(table))

    def rows(self, cells: Iterable[Cell]) -> list[Row]:
        in_order, head, width = self._in_order, self._head.unpack_from, self._head.size
        dimensions: dict[bytes, list] = {}
        words: dict[bytes, list[str | None]] = {}
        begins: bytes | None = None
        rows = []
        for key, timestamp, value in cells:
            layout_and_numbers = head(value)
            if layout_and_numbers[0] != LAYOUT:
                raise SinkError(f"Bigtable {self._name}: a value of layout {value[0]}, which this version cannot read")
            if begins is None or not key.startswith(begins):
                at, before, _ = keys.around_hour(key)
                begins, dimensions = key[:at], {}
            texts = dimensions.get(behind := key[at + keys.HOUR_BYTES :])
            if texts is None:
                texts = dimensions[behind] = keys.texts(before + behind)
            said = words.get(rest := value[width:])
            if said is None:
                said = words[rest] = keys.texts(rest)
            if len(said) > self._words:  # the key's texts in full
                texts, said = said[self._words :], said[: self._words]
            rows.append(in_order((*layout_and_numbers, keys.hour_at(key, at), *texts, *said, timestamp // MICROS_A_REVISION)))
        return rows
