"""One received copy of an event, as it left the reader: accepted, and then a batch of one; or refused."""

from dataclasses import dataclass, field

import numpy as np

from measurement.columnar.batch import ENCODINGS, NO_WATERMARK, EventBatch
from measurement.columnar.intake import position_text
from measurement.columnar.records import Activity


@dataclass(frozen=True, eq=False)
class Copy:
    source: str  # the file's or the subscription's name
    position: str  # source_position
    encoding: str
    schema_id: str | None
    received: int  # µs
    watermark: int | None  # µs, as it stood when it was read; None where none stood yet
    payload: bytes
    ledger_source: str
    refused: tuple[str, str] | None = None  # by the reader: (reason, detail)
    batch: EventBatch | None = None  # of an accepted event
    activity: np.ndarray = field(default_factory=lambda: np.zeros(0, Activity.DTYPE))  # its part in rates

    @property
    def place(self) -> str:
        """Also its reject_id, if it is rejected."""
        return f"{self.source}@{self.position}"

    @property
    def row(self) -> np.void:
        return self.batch.rows[0]

    @property
    def identity(self) -> tuple[int, int]:
        return int(self.row["id_hi"]), int(self.row["id_lo"])

    @property
    def parent(self) -> tuple[int, int]:
        """Of a follow-up its impression's identity, of a conversion its order's; (0, 0) for none."""
        return int(self.row["parent_hi"]), int(self.row["parent_lo"])

    @property
    def event_id(self) -> str:
        return self.batch.event_ids(np.zeros(1, np.int64))[0].decode()


def accepted(batch: EventBatch, i: int, activity: np.ndarray | None = None) -> Copy:
    """Event ``i`` of a batch, copied; ``activity`` is that of the batch."""
    own = part(batch, np.array([i]))
    row = own.rows[0]
    mine = np.zeros(0, Activity.DTYPE)
    if activity is not None:
        mine = activity[np.logical_and.reduce([activity[c] == row[c] for c in ("id_hi", "id_lo", "digest")])]
        mine = mine[np.unique(mine[["hi", "lo"]], return_index=True)[1]]  # a copy in the same frame is as active
    return Copy(
        own.labels[row["file"]], position_text(row["encoding"], int(row["position"]), int(row["index"])), ENCODINGS[row["encoding"]],
        own.labels[row["schema"]] if row["schema"] >= 0 else None, int(row["receipt"]), _known(int(row["watermark"])),
        own.payloads[0], own.labels[row["source"]], batch=own, activity=mine)


def refused(reject: dict) -> Copy:
    return Copy(
        reject["source"], reject["source_position"], reject["encoding"], reject["schema_id"], reject["received_at"],
        _known(reject["watermark"]), reject["payload"], reject["ledger_source"], (reject["reason"], reject["detail"]))


def part(batch: EventBatch, at: np.ndarray) -> EventBatch:
    """The events at some places, copied, so that they keep nothing of the batch in memory."""
    own = EventBatch(batch.rows[at], batch.dims, batch.payloads.take(at), batch.labels)
    return own.own()


def _known(watermark: int) -> int | None:
    return None if watermark == NO_WATERMARK else watermark
