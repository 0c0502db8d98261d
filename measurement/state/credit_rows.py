"""Changes of credits as changes of the tables ``conversion_credits`` and ``attribution``."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from measurement.columnar.batch import Blobs, joined, kept
from measurement.columnar.deltas import Deltas, keys_of
from measurement.columnar.labels import firsts
from measurement.columnar.table import Keys
from measurement.columnar.texts import blob_fingerprints, fingerprints_of_rows, text_blobs, text_fingerprints, texts_of_blobs
from measurement.model.attribution import MODELS
from measurement.model.events import MICROS_PER_HOUR
from measurement.state.credit_views import NO_TOUCH, Rows

_TYPES = ("impression", "click")
_FIXED = [*MODELS, *_TYPES]  # the first labels of every change


@dataclass(frozen=True)
class Texts:
    """What the rows' conversions and touches are called. ``conversions`` codes (r, 3) of advertiser, type and currency,
    ``touches`` codes (n, 5) of each row's touch, -1 where there is none; of ``labels``. ``is_click`` (n,)."""

    conversions: np.ndarray
    touches: np.ndarray
    is_click: np.ndarray
    labels: list[str]


def texts_of(conversions: np.ndarray, touches: np.ndarray, is_click: np.ndarray, labels: list[str]) -> Texts:
    """With the labels that are named and no others, behind the fixed ones."""
    used, label = kept(len(labels), conversions.ravel(), touches.ravel())
    label = np.where(label < 0, -1, label + len(_FIXED)).astype(np.int32)
    return Texts(label[conversions], label[touches], is_click, _FIXED + [labels[c] for c in used.tolist()])


def attribution(rows: Rows, times: np.ndarray, texts: Texts, zeros: bool = False) -> Deltas | None:
    """The sums by hour of n rows of conversions at ``times`` (r,), ``zeros`` among them or not; None if nothing changes."""
    codes = np.empty((len(rows.model), 9), np.int32)
    of = texts.conversions[rows.conversion]
    codes[:, 0], codes[:, 5], codes[:, 8] = of[:, 0], of[:, 1], of[:, 2]
    codes[:, 1:5] = texts.touches[:, 1:]
    codes[:, 6], codes[:, 7] = rows.model, _touch_type(rows, texts)
    hours = times[rows.conversion] // MICROS_PER_HOUR * MICROS_PER_HOUR
    keys = keys_of(hours, codes, texts.labels)
    groups = Keys()
    found = groups.add(keys[:, 0].copy(), keys[:, 1] ^ rows.because)  # a reason of its own is a change of its own
    sums = np.zeros((groups.rows, 2), np.int64)
    np.add.at(sums, found, np.column_stack([rows.credit, rows.micros]))
    at = np.flatnonzero(sums.any(axis=1) | zeros)
    if not len(at):
        return None
    first = firsts(found)[at]
    return Deltas(keys[first], hours[first], rows.because[first], codes[first], sums[at], texts.labels)


def conversion_credits(rows: Rows, times: np.ndarray, texts: Texts, ids: Blobs, touch_ids: Blobs, touch_times: np.ndarray) -> Deltas:
    """The rows themselves; ``ids`` r event_ids, ``touch_ids`` and ``touch_times`` (µs) of the touches of those rows that have
    one."""
    codes, count = np.empty((len(rows.model), 12), np.int32), len(texts.labels)
    used, number = kept(len(times), rows.conversion)
    codes[:, 0] = number[rows.conversion] + count
    codes[:, 1] = rows.model
    touched = np.flatnonzero(rows.candidate != NO_TOUCH)
    codes[:, 2] = codes[:, 6] = -1
    codes[touched, 2] = np.arange(len(touched)) + count + len(used)
    codes[touched, 6] = codes[touched, 2] + len(touched)
    own = joined([ids.take(used), touch_ids, text_blobs(pa.array(touch_times).cast(pa.large_string()))])
    of = texts.conversions[rows.conversion]
    codes[:, 3], codes[:, 4], codes[:, 11] = of[:, 1], of[:, 0], of[:, 2]
    codes[:, 5] = _touch_type(rows, texts)
    codes[:, 7:11] = texts.touches[:, 1:]
    hours = times[rows.conversion]
    # Of ids and times, one a row, the bytes are at hand.
    hi, lo = (np.concatenate(halves) for halves in zip(text_fingerprints(texts.labels), blob_fingerprints(own)))
    keys = np.column_stack(fingerprints_of_rows(hi, lo, codes, hours))
    counts = np.column_stack([rows.credit, rows.micros])
    return Deltas(keys, hours, rows.because, codes, counts, texts.labels + texts_of_blobs(own))


def _touch_type(rows: Rows, texts: Texts) -> np.ndarray:
    return np.where(rows.candidate == NO_TOUCH, -1, len(MODELS) + texts.is_click).astype(np.int32)
