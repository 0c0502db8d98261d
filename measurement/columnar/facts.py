"""What attribution is told of touches and conversions: that one stands, that one no longer does, and by which watermark.

A fact adds to what it says of: of one touch or conversion those facts sum to 1 while it stands and to 0 while it does not, so
that facts may come in any order. The first tells it whole (``terms`` and its event_id); later ones only change the sum.
"""

from dataclasses import dataclass

import numpy as np
import orjson

from measurement.columnar.batch import CODEC, Blobs, kept, pack, unpack
from measurement.columnar.labels import firsts
from measurement.columnar.shards import parted, shard_of
from measurement.columnar.table import Keys
from measurement.columnar.texts import fingerprints_of_rows, numbered, text_fingerprints
from measurement.model.events import CLICK, IMPRESSION

FACT = np.dtype([
    ("user_hi", "u8"), ("user_lo", "u8"),  # fingerprint of advertiser and user; of a conversion without user its identity
    ("id_hi", "u8"), ("id_lo", "u8"),  # the event's identity
    ("parent_hi", "u8"), ("parent_lo", "u8"),  # the impression that the touch belongs to (``impressions``)
    ("time", "i8"),  # event_time, µs
    ("watermark", "i8"),  # µs, by which the fact came to be: of a click also its impression had come
    ("value", "i8"),  # of a conversion, micros
    ("terms", "i4"),  # row of ``terms``; -1: the fact only changes the sum
    ("type", "u1"),  # IMPRESSION, CLICK or CONVERSION
    ("delta", "i1"), ("because", "u1"),  # why what it changes is restated if its hour is closed (deltas.BECAUSE)
    ("reserved", "u1"),
])  # 80 bytes
# Texts that many facts share, as label codes with their fingerprint. Of a touch advertiser, campaign, line item, creative and
# placement; of a conversion advertiser, conversion_type and currency.
TERMS = np.dtype([("hi", "u8"), ("lo", "u8"), ("codes", "i4", (5,))])

_VERSION = 1
_WRITTEN = [name for name in FACT.names if name not in ("parent_hi", "parent_lo", "reserved")]


@dataclass(frozen=True)
class Facts:
    """n facts: ``facts`` FACT (n,), ``terms`` TERMS (m,), ``ids`` n event_ids (empty where ``terms`` is -1), texts by code."""

    facts: np.ndarray
    terms: np.ndarray
    ids: Blobs
    labels: list[str]

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def size(self) -> int:
        return self.facts.nbytes + self.ids.data.nbytes

    def encode(self) -> bytes:
        """Packed and compressed: it is both shuffled and, as attribution's log, kept for months. Column by column it is a tenth
        smaller, and which impression an impression belongs to needs not be said: another sixth."""
        facts = self.facts
        columns = b"".join(facts[name].tobytes() for name in _WRITTEN)
        clicks = facts.take(np.flatnonzero(facts["type"] == CLICK))
        raw = pack(_VERSION, (
            columns, clicks["parent_hi"].tobytes(), clicks["parent_lo"].tobytes(), self.terms.tobytes(),
            np.diff(self.ids.offsets).astype(np.int32).tobytes(), self.ids.data.tobytes(), orjson.dumps(self.labels)))
        return pack(_VERSION, (np.int64(len(raw)).tobytes(), CODEC.compress(raw, asbytes=True)))

    @classmethod
    def decode(cls, encoded: bytes) -> "Facts":
        size, packed = unpack(_VERSION, encoded)
        raw = CODEC.decompress(packed, decompressed_size=int(np.frombuffer(size, np.int64)[0]))
        columns, parent_hi, parent_lo, terms, lengths, data, labels = unpack(_VERSION, raw)
        offsets = np.zeros(len(lengths) // 4 + 1, np.int64)
        np.cumsum(np.frombuffer(lengths, np.int32), out=offsets[1:])
        facts, at = np.zeros(len(offsets) - 1, FACT), 0
        for name in _WRITTEN:
            kind = FACT[name]
            facts[name] = np.frombuffer(columns[at : at + len(facts) * kind.itemsize], kind)
            at += len(facts) * kind.itemsize
        own, clicks = np.flatnonzero(facts["type"] == IMPRESSION), np.flatnonzero(facts["type"] == CLICK)
        facts["parent_hi"][own], facts["parent_lo"][own] = impressions(facts["id_hi"][own], facts["id_lo"][own], facts["time"][own])
        facts["parent_hi"][clicks], facts["parent_lo"][clicks] = (np.frombuffer(half, np.uint64) for half in (parent_hi, parent_lo))
        return cls(facts, np.frombuffer(terms, TERMS), Blobs(offsets, np.frombuffer(data, np.uint8)), orjson.loads(labels))

    def take(self, at: np.ndarray) -> "Facts":
        """The facts at some places, with the terms and labels that they name and no others."""
        facts = self.facts.take(at)  # which copies whole records, as [] does not
        named, number = kept(len(self.terms), facts["terms"])
        facts["terms"] = number[facts["terms"]]
        terms = self.terms.take(named)
        used, label = kept(len(self.labels), terms["codes"].ravel())
        terms["codes"] = label[terms["codes"]]
        return Facts(facts, terms, self.ids.take(at), [self.labels[c] for c in used.tolist()])

    def split(self, shards: int) -> list[tuple[int, "Facts"]]:
        """(shard, its facts in order) for each shard that has any: a user's are together."""
        return [(s, self.take(at)) for s, at in parted(shard_of(self.facts["user_hi"], shards), shards)]


def impressions(hi: np.ndarray, lo: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What touches say of the impressions (identities, times) that they belong to, themselves included: not the identity alone,
    since an id that comes again behind the dedup horizon is another impression."""
    return numbered(*map(np.ascontiguousarray, (hi, lo, times)))


def terms_of(codes: np.ndarray, labels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """TERMS of distinct rows of label codes (k, 5), -1 null, and which of them each row is (k,)."""
    used, number = kept(len(labels), codes.ravel())
    hi, lo = fingerprints_of_rows(*text_fingerprints([labels[c] for c in used.tolist()]), number[codes])
    keys = Keys()
    found = keys.add(hi, lo)
    terms = np.zeros(keys.rows, TERMS)
    terms["hi"], terms["lo"], terms["codes"] = keys.hi[: keys.rows], keys.lo[: keys.rows], codes[firsts(found)]
    return terms, found
