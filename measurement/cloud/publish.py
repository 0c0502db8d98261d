"""`measurement publish`: event files to a topic, as their publishers would send them: one event a message, or many.

Files are sent side by side, the one furthest behind in event time first, so that a day in several files is one day on the
topic. Bytes are sent as they stand in the files; a datum of another writer than version 1 names its schema. What has been sent is
said on the audits' topic (measurement/monitors/audits.py): every few seconds, and at the end.
"""

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from google.pubsub_v1.types import pubsub as types

from measurement.cloud.places import CloudError
from measurement.cloud.pubsub_admin import PubSubAdmin
from measurement.columnar import identify
from measurement.columnar.batch import AVRO
from measurement.columnar.decode import Decoded
from measurement.columnar.intake import readable_times
from measurement.columnar.labels import Labels
from measurement.io.endpoints import Endpoints
from measurement.io.framing import READER_SCHEMA, Frame, WriterSchema, frames, zigzag
from measurement.io.pubsub.api import channel
from measurement.io.pubsub.messages import CONTAINER, SINGLE_OBJECT
from measurement.model.events import FIELD_INDEX
from measurement.monitors.audits import MINUTE, Tally

_FRAME_EVENTS = 2_000
_REQUEST_MESSAGES, _REQUEST_BYTES = 1_000, 8 << 20  # the service takes 1,000 and 10 MB
_IN_FLIGHT = 8  # requests
_SECONDS = 60.0
_SYNC = bytes(range(16))
_AUDIT_SECONDS = 10.0  # so often what was sent is said
_UNREADABLE = np.iinfo(np.int64).min  # stands for the minute of events whose time cannot be read
_NOBODY = ""  # stands for the source of events that name none
_TIME = FIELD_INDEX["event_time"]
_PublishRequest, _PubsubMessage = types.PublishRequest.pb(), types.PubsubMessage.pb()


@dataclass
class Published:
    events: int = 0
    messages: int = 0
    bytes: int = 0


def publish(paths: list[Path], topic: str, audits: str | None, endpoints: Endpoints, batch: int,
            tell: Callable[[Published], None]) -> Published:
    """Sends every event of the files, ``batch`` to a message, and says so on the topic ``audits``, if there is one. CloudError if a
    topic is not there or a send is refused; framing.UnreadableInput for a damaged file."""
    admin = PubSubAdmin(endpoints)
    for name in (topic, *([audits] if audits else [])):
        admin.topic(name)
    done, tally = Published(), Tally(f"publish-{uuid.uuid4().hex[:12]}")
    for some in _for_a_while(_messages(paths, batch, done, tally)):
        send(endpoints, topic, some, lambda: tell(done))
        if audits:  # all of it has been taken
            audit(endpoints, audits, tally)
    if audits:
        audit(endpoints, audits, tally, ended=True)
    return done


def audit(endpoints: Endpoints, topic: str, tally: Tally, ended: bool = False) -> None:
    """Says on the audits' topic what has been sent. CloudError where it is refused."""
    send(endpoints, topic, (said.encode() for said in tally.said(time.time_ns() // 1_000, ended)), lambda: None)


def _for_a_while(messages: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    """The messages in parts that each take as long as lies between two audits."""
    first = next(messages, None)
    while first is not None:
        yield _until(messages, first, time.monotonic() + _AUDIT_SECONDS)
        first = next(messages, None)


def _until(messages: Iterator[bytes], first: bytes, end: float) -> Iterator[bytes]:
    yield first
    while time.monotonic() < end and (message := next(messages, None)) is not None:
        yield message


def send(endpoints: Endpoints, topic: str, messages: Iterator[bytes], sent: Callable[[], None]) -> None:
    """Sends messages, several requests at a time. CloudError if one is refused."""
    at = channel(endpoints)
    call = at.unary_unary("/google.pubsub.v1.Publisher/Publish", request_serializer=_PublishRequest.SerializeToString,
                          response_deserializer=types.PublishResponse.pb().FromString)
    waiting = deque[Future]()
    try:
        for request in _requests(topic, messages):
            if len(waiting) >= _IN_FLIGHT:
                waiting.popleft().result()
                sent()
            waiting.append(call.future(request, timeout=_SECONDS))
        while waiting:
            waiting.popleft().result()
    except grpc.RpcError as error:
        raise CloudError(f"--topic {topic}: {error.code().name}: {error.details()}; what was sent stays sent, and a second "
                         "sending of it counts nothing twice") from error
    finally:
        at.close()


def _requests(topic: str, messages: Iterator[bytes]) -> Iterator:
    request, size = _PublishRequest(topic=topic), 0
    for data in messages:
        if len(request.messages) >= _REQUEST_MESSAGES or (request.messages and size + len(data) > _REQUEST_BYTES):
            yield request
            request, size = _PublishRequest(topic=topic), 0
        request.messages.append(_PubsubMessage(data=data))
        size += len(data) + 16
    if request.messages:
        yield request


def _messages(paths: list[Path], batch: int, done: Published, tally: Tally) -> Iterator[bytes]:
    for frame, decoded in _abreast(paths):
        datums = [decoded.payloads[i] for i in range(len(decoded.payloads))]
        broken = [raw for *_, raw in decoded.failed if raw]
        if frame.encoding == AVRO and batch > 1:
            parts = (_container(frame.schema, datums[i : i + batch]) for i in range(0, len(datums), batch))
        elif frame.encoding == AVRO:
            head = b"" if frame.schema.id == READER_SCHEMA.id else SINGLE_OBJECT + bytes.fromhex(frame.schema.id)
            parts = (head + datum for datum in datums)
        else:
            datums, broken = datums + broken, []
            parts = (b"\n".join(datums[i : i + batch]) for i in range(0, len(datums), batch))
        done.events += len(datums) + len(broken)
        for data in (*parts, *broken):
            done.messages += 1
            done.bytes += len(data)
            yield data
        _count(tally, decoded)  # when all of them have been sent: an audit may say less, never more


def _count(tally: Tally, decoded: Decoded) -> None:
    labels = Labels()
    times, readable = readable_times(decoded)
    minutes = np.where(readable, times // MINUTE, _UNREADABLE)
    found, n = np.unique(np.column_stack([identify.sources(decoded, labels, _NOBODY), minutes]), axis=0, return_counts=True)
    for (source, minute), events in zip(found.tolist(), n.tolist()):
        tally.add(labels.texts[source] or None, None if minute == _UNREADABLE else minute * MINUTE, events)
    if broken := sum(1 for *_, raw in decoded.failed if raw):
        tally.add(None, None, broken)


def _abreast(paths: list[Path]) -> Iterator[tuple[Frame, Decoded]]:
    """The files' frames and their events, always those of the file which is furthest behind in event time."""
    reading = {path: frames(path, _FRAME_EVENTS, _FRAME_EVENTS) for path in paths}
    behind = dict.fromkeys(paths, np.iinfo(np.int64).min)
    while reading:
        path = min(reading, key=behind.__getitem__)
        found = next(reading[path], None)
        if found is None:
            del reading[path]
            continue
        frame, decoded = found[0], found[0].decoded()
        times = decoded.values[:, _TIME]
        if len(times):
            behind[path] = max(behind[path], int(np.median(times)))
        yield frame, decoded


def _container(schema: WriterSchema, datums: list[bytes]) -> bytes:
    """An Avro object container of one block."""
    data, text = b"".join(datums), schema.text.encode()
    meta = b"".join(_framed(part) for part in (b"avro.codec", b"null", b"avro.schema", text))
    head = CONTAINER + zigzag(2) + meta + zigzag(0) + _SYNC
    return head + zigzag(len(datums)) + zigzag(len(data)) + data + _SYNC


def _framed(part: bytes) -> bytes:
    return zigzag(len(part)) + part
