"""The coder of what a source emits: batch and tallies by their own versioned forms, rejects as Arrow, and no pickle.

An intake mostly stays within one fused stage. Where an engine parts source and next step, or takes a job's place in an
update, the bytes must be read by whatever version comes next, or be refused by name.
"""

import numpy as np
import orjson
import pyarrow as pa
from apache_beam.coders import Coder, registry

from measurement.columnar.batch import EventBatch, pack, unpack
from measurement.columnar.deltas import Deltas
from measurement.columnar.intake import Intake
from measurement.columnar.records import Activity
from measurement.io.publication import REJECTED, ipc

_VERSION = 2
_TIMES = ("event_time", "received_at")  # µs


class IntakeCoder(Coder):
    """Sections: the watermark in front (int64 µs), tables' names, rejects, batch, activity, then the tables' tallies."""

    def encode(self, intake: Intake) -> bytes:
        return pack(_VERSION, (
            np.int64(intake.before).tobytes(), orjson.dumps(list(intake.tallies)), _encoded(intake.rejects),
            intake.batch.encode(), b"" if intake.activity is None else intake.activity.encode(),
            *(deltas.encode() for deltas in intake.tallies.values())))

    def decode(self, encoded: bytes) -> Intake:
        before, tables, rejects, batch, activity, *tallies = unpack(_VERSION, encoded)
        by_table = dict(zip(orjson.loads(tables), map(Deltas.decode, tallies)))
        return Intake(EventBatch.decode(batch), _decoded(rejects), by_table, int(np.frombuffer(before, np.int64)[0]),
                      Activity.decode(activity) if len(activity) else None)

    def is_deterministic(self) -> bool:
        return False

    def estimate_size(self, intake: Intake) -> int:
        return intake.batch.size  # and not by encoding it, as Beam would to sample sizes

    def to_type_hint(self):
        return Intake


registry.register_coder(Intake, IntakeCoder)  # here, so that no source can do without


def _encoded(rejects: list[dict]) -> bytes:
    return ipc(pa.Table.from_pylist(rejects, REJECTED)) if rejects else b""


def _decoded(encoded: memoryview) -> list[dict]:
    if not len(encoded):
        return []
    rejects = pa.ipc.open_stream(encoded).read_all()
    for name in _TIMES:  # as numbers, since datetime knows fewer years and less precision
        rejects = rejects.set_column(rejects.schema.get_field_index(name), name, rejects[name].cast(pa.int64()))
    return rejects.to_pylist()
