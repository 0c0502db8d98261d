"""One frame of input through decoding and the stateless rules: what a source hands on as one element.

A frame becomes the batch of its accepted events, a reject for every other one, and three tallies: what the edge counted
(``intake``), what was decoded hour by hour (``arrivals``, the count that reconcile holds against the ledger), and the
ledger entries of the events rejected here.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from measurement.columnar import identify
from measurement.columnar.batch import AVRO, ENCODINGS, NO_WATERMARK, EventBatch
from measurement.columnar.decode import Decoded
from measurement.columnar.deltas import LATE, ON_TIME, Deltas
from measurement.columnar.judge import ACCEPTED, BAD_VALUE, CONSENT_DENIED, FUTURE, REASONS, UNDECODABLE, judge
from measurement.columnar.labels import Labels
from measurement.columnar.records import Activity
from measurement.columnar.screen import Screen
from measurement.model import events as e
from measurement.model.policy import Policy

_TIME, _EVENT_ID, _EVENT_TYPE, _CONSENT = (e.FIELD_INDEX[name] for name in ("event_time", "event_id", "event_type", "consent"))



@dataclass(frozen=True)
class Origin:
    """Where a frame was read: the source's name, its pieces' positions and clocks (µs: the receipt of events that state
    none), and the writer's schema."""

    source: str
    positions: np.ndarray  # int64, one a piece
    encoding: int
    schema_id: str | None
    clocks: np.ndarray  # int64, one a piece


# What the edge counted, by hour of receipt (µs): messages, events, bytes.
Edge = dict[int, tuple[int, int, int]]


@dataclass
class Intake:
    """What one frame became."""

    batch: EventBatch
    rejects: list[dict]  # of publication.REJECTED; those decoded also with the watermark (µs) that they were judged by
    tallies: dict[str, Deltas]  # by table
    before: int  # watermark (µs) in front of the frame
    activity: Activity | None = None  # of the batch's events, where the policy asks for rates


def take_in(decoded: Decoded, origin: Origin, edge: Edge, policy: Policy, watermark, others: int, screen: Screen,
            floor: int = NO_WATERMARK) -> Intake:
    """Judges a decoded frame. ``edge`` is what was counted before decoding; older than the ``floor`` (µs) is too late."""
    counting = policy.counting
    start = min(watermark.value, others)
    refused, unnamed = screen.without_consent(decoded)
    judged = _judged(decoded, origin.clocks[decoded.piece], policy, refused)
    reason, kinds = judged["reason"], judged["type"]
    times = decoded.values[:, _TIME]
    before = watermark.judge(times, reason, others, counting.dedup_horizon, floor)

    labels = Labels()
    sources = identify.sources(decoded, labels, origin.source)
    chosen = np.flatnonzero(reason == ACCEPTED)
    batch = identify.batch(decoded, chosen, kinds, labels)
    rows = batch.rows
    rows["watermark"], rows["receipt"] = before[chosen], judged["receipt"][chosen]
    rows["shows"], rows["source"] = judged["shows"][chosen], sources[chosen]
    rows["position"], rows["index"] = origin.positions[decoded.piece[chosen]], decoded.index[chosen]
    rows["id_at"], rows["id_length"] = decoded.id_at[chosen], decoded.lengths[chosen, _EVENT_ID]
    rows["file"], rows["encoding"] = labels.code(origin.source), origin.encoding
    rows["schema"] = -1 if origin.schema_id is None else labels.code(origin.schema_id)
    activity = screen.judge(decoded, judged, chosen, rows)
    if len(unnamed):
        nobody = np.isin(chosen, unnamed)  # rates have seen the user, nobody behind them does
        rows["user_hi"][nobody], rows["user_lo"][nobody] = 0, 0

    hours, readable = _hours(decoded)
    rejects, entries = [], Counter()
    for i in np.flatnonzero(reason != ACCEPTED).tolist():
        name = REASONS[reason[i]]
        hour = int(hours[i]) if readable[i] else None
        late = bool(hour is not None and before[i] >= hour + e.MICROS_PER_HOUR + counting.allowed_lateness)
        event_id, event_type = (_text(decoded, i, f) for f in (_EVENT_ID, _EVENT_TYPE))
        field = judged["field"][i]
        rejects.append(_reject(origin, int(decoded.piece[i]), int(decoded.index[i]), name,
                               e.FIELDS[field] if field >= 0 else "older than the dedup horizon behind the watermark",
                               decoded.payloads[i], int(judged["receipt"][i]), event_id,
                               int(times[i]) if readable[i] else None, event_type))
        rejects[-1] |= {"ledger_source": labels.texts[sources[i]], "late": late, "watermark": int(before[i])}
        entries[hour, LATE if late else ON_TIME, labels.texts[sources[i]], event_type, name] += 1
    for piece, index, why, payload in decoded.failed:
        rejects.append(_reject(origin, piece, index, REASONS[UNDECODABLE], why, payload, int(origin.clocks[piece]), None, None, None))
        rejects[-1] |= {"ledger_source": origin.source, "late": False}
        entries[None, ON_TIME, origin.source, None, REASONS[UNDECODABLE]] += 1
    arrivals = _arrivals(decoded, hours, readable, kinds, sources, labels)
    if decoded.failed:
        arrivals[None, ON_TIME, origin.source, None] += len(decoded.failed)
    tallies = {
        "intake": {(hour, ON_TIME, origin.source): counts for hour, counts in edge.items()},
        "arrivals": {key: (n,) for key, n in arrivals.items()},
        "ledger": {key: (n,) for key, n in entries.items()},
    }
    return Intake(batch, rejects, {table: Deltas.tally(counted) for table, counted in tallies.items() if counted},
                  start, activity)


def _judged(decoded: Decoded, clocks: np.ndarray, policy: Policy, refused: np.ndarray) -> dict[str, np.ndarray]:
    judged = judge(decoded.buf, decoded.values, decoded.lengths, clocks, policy.counting.viewability)
    for row, fields in decoded.wrong.items():
        # A wrong type is a bad value, and what the compiled rules made of its placeholder does not stand.
        if judged["reason"][row] in (ACCEPTED, FUTURE, BAD_VALUE):
            judged["reason"][row], judged["field"][row] = BAD_VALUE, min(fields)
    denied = refused[np.isin(judged["reason"][refused], (ACCEPTED, FUTURE))]
    judged["reason"][denied], judged["field"][denied] = CONSENT_DENIED, _CONSENT
    return judged


def accepted_times(decoded: Decoded, clock: int, policy: Policy, screen: Screen) -> np.ndarray:
    """Event times (int64 µs) of the events that the stateless rules accept, in order of arrival."""
    refused, _ = screen.without_consent(decoded)
    return decoded.values[_judged(decoded, np.full(len(decoded.values), clock), policy, refused)["reason"] == ACCEPTED, _TIME]


def _hours(decoded: Decoded) -> tuple[np.ndarray, np.ndarray]:
    """(the hour of each event's own time, whether that time could be read)."""
    times, readable = readable_times(decoded)
    return np.where(readable, times // e.MICROS_PER_HOUR * e.MICROS_PER_HOUR, 0), readable


def readable_times(decoded: Decoded) -> tuple[np.ndarray, np.ndarray]:
    """(each event's own time, int64 µs; whether it could be read)."""
    times = decoded.values[:, _TIME]
    readable = (decoded.lengths[:, _TIME] >= 0) & (times >= e.MIN_TIME_MICROS) & (times <= e.MAX_TIME_MICROS)
    for row, fields in decoded.wrong.items():
        if _TIME in fields:
            readable[row] = False
    return times, readable


def _arrivals(decoded, hours, readable, kinds, sources, labels) -> Counter:
    """Events by (hour, ON_TIME, source, event_type), whatever becomes of them."""
    known = kinds < len(e.EVENT_TYPES)
    counted = Counter()
    if known.any():
        # hour, source and type packed into one number, which sorts far faster than a record
        first = hours[known].min()
        spans = np.where(readable, (hours - first) // e.MICROS_PER_HOUR + 1, 0)[known]
        packed = (spans * (len(labels.texts) + 1) + sources[known]) * 16 + kinds[known]
        for group, n in zip(*(a.tolist() for a in np.unique(packed, return_counts=True))):
            span, source = divmod(group >> 4, len(labels.texts) + 1)
            hour = int(first) + (span - 1) * e.MICROS_PER_HOUR if span else None
            counted[hour, ON_TIME, labels.texts[source], e.EVENT_TYPES[group & 15]] += n
    for i in np.flatnonzero(~known).tolist():
        hour = int(hours[i]) if readable[i] else None
        counted[hour, ON_TIME, labels.texts[sources[i]], _text(decoded, i, _EVENT_TYPE)] += 1
    return counted


def _text(decoded: Decoded, row: int, field: int) -> str | None:
    """A text field as it was readable; None if null or of a wrong type."""
    length = decoded.lengths[row, field]
    if length <= 0 or field in decoded.wrong.get(row, ()):
        return None
    start = decoded.values[row, field]
    return decoded.buf[start : start + length].tobytes().decode()


def position_text(encoding: int, position: int, index: int) -> str:
    """``source_position``: the message id or offset of an Avro block and the index in it, or that of a JSON line."""
    return f"{position}:{index}" if encoding == AVRO or index else str(position)


def _reject(origin: Origin, piece: int, index: int, reason: str, detail: str, payload: bytes, received_at: int,
            event_id, event_time, event_type) -> dict:
    position = position_text(origin.encoding, origin.positions[piece], index)
    return {
        "reject_id": f"{origin.source}@{position}", "reason": reason, "detail": detail, "event_id": event_id,
        "event_time": event_time, "event_type": event_type, "payload": payload, "encoding": ENCODINGS[origin.encoding],
        "schema_id": origin.schema_id, "source": origin.source, "source_position": position, "received_at": received_at,
    }
