"""Identity, content digest and dimensions of decoded events, compiled, and the batch of the accepted ones.

Identity is event_id within the impression that the event belongs to (contract section 2): the fingerprint of both
texts' fingerprints. An impression and a conversion belong to themselves. Events marked ``test`` live in a world of their
own: another seed keeps them from ever joining, doubling or conflicting with a customer's event.
"""

import numpy as np
from numba import njit

from measurement.columnar.batch import DIMS, ROW, EventBatch
from measurement.columnar.decode import Decoded
from measurement.columnar.hashing import avalanche, combine, digest64, fingerprint
from measurement.columnar.labels import Labels, firsts
from measurement.columnar.table import Keys
from measurement.model import events as e

_F = e.FIELD_INDEX
_EVENT_ID, _IMPRESSION_ID, _TIME, _PRICE, _TEST = (
    _F["event_id"], _F["impression_id"], _F["event_time"], _F["price_micros"], _F["test"])
_ADVERTISER, _CONVERSION_TYPE, _ORDER_ID = _F["advertiser_id"], _F["conversion_type"], _F["order_id"]
_USER_ID, _VALUE = _F["user_id"], _F["value_micros"]
_SOURCE_ID, _RECEIVED = _F["source_id"], _F["received_time"]
_DIMENSIONS = np.array([_F[name] for name in e.DIMENSIONS])
_ORDER = np.array([_ADVERTISER, _CONVERSION_TYPE, _ORDER_ID])
_CONVERSION_DIMENSIONS = np.array([*_DIMENSIONS, _CONVERSION_TYPE])
# Where the codes of a conversion's advertiser_id, conversion_type and currency stand in DIMS.
TERMS_AT = [e.DIMENSIONS.index("advertiser_id"), len(e.DIMENSIONS), e.DIMENSIONS.index("currency")]
_TEXTS = np.array([type_ == "string" or type_ == ["null", "string"] for type_ in (f["type"] for f in e.SCHEMA["fields"])])
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

TEST_ADVERTISER = e.TEST_ADVERTISER


@njit
def _fields(buf, v, n, fields, seed):
    """Fingerprint of several text fields in order; null differs from every text."""
    h1, h2 = np.uint64(seed), np.uint64(0)
    for f in fields:
        if n[f] > 0:
            t1, t2 = fingerprint(buf, v[f], n[f], 0)
        else:
            t1, t2 = np.uint64(0), np.uint64(0)
        h1, h2 = combine(h1, h2, t1, t2)
    return h1, h2


@njit
def _digest(buf, v, n):
    """64-bit digest of the content: every field but received_time. It only tells duplicate from id_conflict."""
    h = np.uint64(0)
    for f in range(len(n)):
        if n[f] < 0 or f == _RECEIVED:
            continue
        h = (h ^ np.uint64(f + 1)) * _GOLDEN
        if _TEXTS[f]:
            h = digest64(buf, v[f], n[f], h)
        else:
            h = avalanche(h ^ np.uint64(v[f]))
    return h


@njit(cache=True, nogil=True)
def _identify(buf, values, lengths, chosen, kind, rows, dims_hi, dims_lo):
    """Fills identity, parent, user, digest, time and price of ``rows``; the dims arrays get the fingerprints of impressions'
    dimensions and conversions' terms."""
    for r in range(len(chosen)):
        i = chosen[r]
        v, n = values[i], lengths[i]
        row = rows[r]
        test = np.uint64(1) if n[_TEST] >= 0 and v[_TEST] == 1 else np.uint64(0)
        own1, own2 = fingerprint(buf, v[_EVENT_ID], n[_EVENT_ID], test)
        if kind[i] == e.IMPRESSION or kind[i] == e.CONVERSION:
            row.id_hi, row.id_lo = combine(own1, own2, own1, own2)
            if kind[i] == e.IMPRESSION:
                dims_hi[r], dims_lo[r] = _fields(buf, v, n, _DIMENSIONS, test)
            else:
                dims_hi[r], dims_lo[r] = _fields(buf, v, n, _CONVERSION_DIMENSIONS, test + np.uint64(2))
                if n[_ORDER_ID] > 0:
                    row.parent_hi, row.parent_lo = _fields(buf, v, n, _ORDER, test)
        else:
            imp1, imp2 = fingerprint(buf, v[_IMPRESSION_ID], n[_IMPRESSION_ID], test)
            row.id_hi, row.id_lo = combine(imp1, imp2, own1, own2)
            row.parent_hi, row.parent_lo = combine(imp1, imp2, imp1, imp2)
        row.digest = _digest(buf, v, n)
        row.time = v[_TIME]
        price = _VALUE if kind[i] == e.CONVERSION else _PRICE
        row.price = v[price] if n[price] >= 0 else 0
        if n[_USER_ID] > 0:
            row.user_hi, row.user_lo = fingerprint(buf, v[_USER_ID], n[_USER_ID], test)


def dimension_keys(rows: list[tuple[str | None, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprints (hi, lo; uint64) of delivery rows' dimensions as the tables have them."""
    hi, lo = np.empty(len(rows), np.uint64), np.empty(len(rows), np.uint64)
    fields = np.arange(len(e.DIMENSIONS))
    for i, (advertiser, *others) in enumerate(rows):
        test = advertiser.startswith(TEST_ADVERTISER)
        texts = [(t or "").encode() for t in (advertiser.removeprefix(TEST_ADVERTISER) if test else advertiser, *others)]
        lengths = np.array([len(t) for t in texts], np.int32)
        hi[i], lo[i] = _fields_of(np.frombuffer(b"".join(texts), np.uint8), np.cumsum(lengths) - lengths, lengths, fields, int(test))
    return hi, lo


@njit(cache=True, nogil=True)
def _fields_of(buf, starts, lengths, fields, seed):
    return _fields(buf, starts, lengths, fields, seed)


def sources(decoded: Decoded, labels: Labels, file: str) -> np.ndarray:
    """The ledger's source of each event, as label codes: its source_id, else the file's name."""
    codes = labels.codes(decoded.buf, decoded.values[:, _SOURCE_ID], decoded.lengths[:, _SOURCE_ID])
    if decoded.wrong:
        unusable = [row for row, fields in decoded.wrong.items() if _SOURCE_ID in fields]
        codes[unusable] = -1
    return np.where(codes < 0, np.int32(labels.code(file)), codes)


def batch(decoded: Decoded, chosen: np.ndarray, kinds: np.ndarray, labels: Labels) -> EventBatch:
    """The chosen events as a batch; the caller fills what it alone knows (watermark, receipt, origin, verdict)."""
    rows = np.zeros(len(chosen), ROW)
    dims_hi, dims_lo = np.zeros(len(chosen), np.uint64), np.zeros(len(chosen), np.uint64)
    _identify(decoded.buf, decoded.values, decoded.lengths, chosen, kinds, rows, dims_hi, dims_lo)
    rows["type"] = kinds[chosen]
    rows["dims"] = -1
    dims = _dimensions(decoded, chosen, rows, dims_hi, dims_lo, labels)
    return EventBatch(rows, dims, decoded.payloads.take(chosen), labels.texts)


def _dimensions(decoded, chosen, rows, dims_hi, dims_lo, labels) -> np.ndarray:
    """Each distinct combination of dimensions or terms once; ``rows['dims']`` of impressions and conversions names it."""
    heads = np.flatnonzero((rows["type"] == e.IMPRESSION) | (rows["type"] == e.CONVERSION))
    keys = Keys()
    found = keys.add(dims_hi[heads], dims_lo[heads])
    rows["dims"][heads] = found
    first = heads[firsts(found)]
    dims = np.empty(keys.rows, DIMS)
    dims["hi"], dims["lo"] = keys.hi[: keys.rows], keys.lo[: keys.rows]
    dims["codes"] = -1
    converted = rows["type"][first] == e.CONVERSION
    for at, fields in ((np.flatnonzero(~converted), _DIMENSIONS), (np.flatnonzero(converted), _CONVERSION_DIMENSIONS)):
        texts = np.ix_(chosen[first[at]], fields)
        codes = np.full((len(at), len(_CONVERSION_DIMENSIONS)), -1, np.int32)
        codes[:, : len(fields)] = labels.codes(decoded.buf, decoded.values[texts], decoded.lengths[texts])
        dims["codes"][at] = codes
    events = chosen[first]
    tests = (decoded.lengths[events, _TEST] >= 0) & (decoded.values[events, _TEST] == 1)
    for row in np.flatnonzero(tests):
        dims["codes"][row, 0] = labels.code(TEST_ADVERTISER + labels.texts[dims["codes"][row, 0]])
    return dims
