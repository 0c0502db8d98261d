"""What launches of a job agree on: its generation, which readers have begun to acknowledge, where its archive is. A row a
job in Bigtable.

Every change is one compare-and-set of the row, which Bigtable decides in order where the instance's app profile routes to
a single cluster; with multi-cluster routing it refuses them.
"""

import time
import uuid
from dataclasses import dataclass

from google.cloud.bigtable_v2.types import CheckAndMutateRowRequest, Mutation, ReadRowsRequest, ReadRowsResponse, RowFilter

from measurement.io.bigtable_service import Service
from measurement.io.endpoints import Endpoints
from measurement.io.retry import Patience, SinkError, retrying

TABLE = "control"
_STATE, _WITNESSES, _SETTINGS = FAMILIES = ("g", "w", "s")


@dataclass(frozen=True)
class Generation:
    """``began`` and ``floor`` in µs; ``floor`` None where there is none. ``state`` is the caller's text."""

    number: int
    began: int
    floor: int | None
    state: str


class Control:
    """``job`` is the subscription. SinkError where Bigtable is away or refuses."""

    def __init__(self, endpoints: Endpoints, instance: str, patience: Patience = Patience(60)):
        self._service = Service(endpoints, instance)
        self._path = self._service.table(TABLE)
        self._patience = patience

    def generation(self, job: str) -> Generation | None:
        """The last that began."""
        cells = {column: value for (family, column), value in self._read(job).items() if family == _STATE}
        if not cells:
            return None
        floor = int(cells[b"floor"]) if cells[b"floor"] else None
        return Generation(int(cells[b"number"]), int(cells[b"began"]), floor, cells[b"state"].decode())

    def begin(self, job: str, expected_last: int | None, new: Generation) -> bool:
        """Whether ``new`` is now the last, which takes that ``expected_last`` was (None: that there was none)."""
        if expected_last is not None and new.number <= expected_last:
            raise ValueError(f"generation {new.number} does not come after {expected_last}")
        token = uuid.uuid4().hex.encode()
        cells = {b"number": b"%d" % new.number, b"began": b"%d" % new.began, b"state": new.state.encode(), b"token": token,
                 b"floor": b"" if new.floor is None else b"%d" % new.floor}
        changes = [Mutation(delete_from_family={"family_name": _WITNESSES}),
                   *(_set(_STATE, name, value, new.number) for name, value in cells.items())]
        if self._change(job, expected_last, changes):
            return True
        # An attempt that was tried again may have been done the first time: then the token is ours.
        return self._read(job).get((_STATE, b"token")) == token

    def set_state(self, job: str, generation: int, state: str) -> None:
        """SinkError unless the generation is the last."""
        self._change_own(job, generation, [_set(_STATE, b"state", state.encode(), generation)])

    def witness(self, job: str, generation: int, reader: str) -> None:
        """To be stored before the reader's first acknowledgement. SinkError unless the generation is the last."""
        self._change_own(job, generation, [_set(_WITNESSES, reader.encode(), b"", generation)])

    def witnessed(self, job: str, generation: int, reader: str) -> bool:
        """Whether the reader has, in this generation; False also where another began since."""
        cells = self._read(job)
        return cells.get((_STATE, b"number")) == b"%d" % generation and (_WITNESSES, reader.encode()) in cells

    def setting(self, job: str, name: str) -> str | None:
        value = self._read(job).get((_SETTINGS, name.encode()))
        return None if value is None else value.decode()

    def configure(self, job: str, name: str, value: str) -> None:
        """Sets what holds for all generations of the job; the last to do so has its way."""
        change = _set(_SETTINGS, name.encode(), value.encode(), time.time_ns() // 1_000_000)
        self._retrying(lambda timeout: self._service.data.mutate_row(
            table_name=self._path, row_key=job.encode(), mutations=[change], timeout=timeout, retry=None))

    def close(self) -> None:
        self._service.close()

    def _change_own(self, job: str, generation: int, changes: list[Mutation]) -> None:
        if not self._change(job, generation, changes):
            raise SinkError(f"{job}: generation {generation} is not the last that began")

    def _change(self, job: str, last: int | None, changes: list[Mutation]) -> bool:
        """Makes the changes if the last generation is ``last``; whether it was."""
        number = RowFilter(chain={"filters": [
            {"family_name_regex_filter": _STATE}, {"column_qualifier_regex_filter": b"number"},
            {"cells_per_column_limit_filter": 1}, *([] if last is None else [{"value_regex_filter": b"%d" % last}])]})
        then = {"false_mutations": changes} if last is None else {"true_mutations": changes}
        request = CheckAndMutateRowRequest(table_name=self._path, row_key=job.encode(), predicate_filter=number, **then)
        change = self._service.data.check_and_mutate_row
        answer = self._retrying(lambda timeout: change(request=request, timeout=timeout, retry=None))
        return answer.predicate_matched == (last is not None)

    def _read(self, job: str) -> dict[tuple[str, bytes], bytes]:
        """Latest values by family and column."""
        read, latest = self._service.data.read_rows, {"cells_per_column_limit_filter": 1}
        request = ReadRowsRequest(table_name=self._path, rows={"row_keys": [job.encode()]}, filter=latest)
        return self._retrying(lambda timeout: _cells(read(request=request, timeout=timeout, retry=None)))

    def _retrying(self, attempt):
        return retrying(f"Bigtable {self._path}", attempt, self._patience)


def _cells(answers) -> dict[tuple[str, bytes], bytes]:
    cells, family, column = {}, "", b""
    for answer in answers:
        for chunk in ReadRowsResponse.pb(answer).chunks:
            if chunk.reset_row:
                cells = {}
                continue
            if chunk.HasField("family_name"):
                family = chunk.family_name.value
            if chunk.HasField("qualifier"):
                column = chunk.qualifier.value
            cells[family, column] = chunk.value  # far too short to come in several chunks
    return cells


def _set(family: str, column: bytes, value: bytes, generation: int) -> Mutation:
    # At the generation's own time: what is set twice is set once, and a later generation's stands above.
    at = generation * 1000
    return Mutation(set_cell={"family_name": family, "column_qualifier": column, "value": value, "timestamp_micros": at})
