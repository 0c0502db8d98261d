"""Coders of the batches that travel between stages; each batch type writes its own version."""

from apache_beam.coders import Coder, registry

from measurement.columnar.batch import EventBatch, version
from measurement.columnar.deltas import Deltas
from measurement.columnar.facts import Facts
from measurement.columnar.records import Activity, Verdicts
from measurement.transforms.distribute import Judged


class _Encoded(Coder):
    """For a type with ``encode`` and ``decode``."""

    TYPE: type

    def encode(self, value) -> bytes:
        return value.encode()

    def decode(self, encoded: bytes):
        return self.TYPE.decode(encoded)

    def is_deterministic(self) -> bool:
        return False

    def estimate_size(self, value) -> int:
        # Beam samples sizes by encoding what it samples; of elements as few and large as these it samples every other.
        return value.size

    def to_type_hint(self):
        return self.TYPE


class JudgedCoder(_Encoded):
    TYPE = Judged

    def decode(self, encoded: bytes) -> EventBatch | Verdicts:
        return (Verdicts if version(encoded) == Verdicts.VERSION else EventBatch).decode(encoded)


class ActivityCoder(_Encoded):
    TYPE = Activity


class DeltasCoder(_Encoded):
    TYPE = Deltas


class FactsCoder(_Encoded):
    TYPE = Facts


registry.register_coder(Judged, JudgedCoder)
registry.register_coder(Activity, ActivityCoder)
registry.register_coder(Deltas, DeltasCoder)
registry.register_coder(Facts, FactsCoder)
