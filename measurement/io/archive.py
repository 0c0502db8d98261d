"""The archive: messages as received, in Avro files by hour of publication, through Beam's filesystems.

On Google Cloud a Cloud Storage subscription writes it, which no fault of the job can touch; its Avro form with metadata is
the one read and written here. Where there is no such subscription the job writes it itself, before it emits the messages
and so before any of them can be published or acknowledged: what was, is in the archive.
"""

import io
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import fastavro
import orjson
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from measurement.io.pubsub.messages import Message
from measurement.model.events import MICROS_PER_HOUR, MICROS_PER_SECOND

HOURS = "%Y-%m-%d/%H"  # directories below the archive's own; provision tells the Cloud Storage subscription the same
_SCHEMA = fastavro.parse_schema({
    "type": "record", "name": "PubsubMessage", "namespace": "com.google.pubsub.v1", "fields": [
        {"name": "subscription_name", "type": "string"},
        {"name": "message_id", "type": "string"},
        {"name": "publish_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "attributes", "type": {"type": "map", "values": "string"}},
        {"name": "data", "type": "bytes"},
    ]})
_BARE = fastavro.parse_schema({**_SCHEMA, "name": "PubsubMessage", "fields": [
    {**f, "type": "long"} if f["name"] == "publish_time" else f for f in _SCHEMA["fields"]]})


def write(directory: str, subscription: str, messages: list[Message]) -> None:
    """Writes messages whole, a file for each hour of publication. OSError (BeamIOError) where that cannot be."""
    by_hour: dict[int, list[Message]] = {}
    for message in messages:
        by_hour.setdefault(message.published // MICROS_PER_HOUR, []).append(message)
    for hour, some in by_hour.items():
        place = FileSystems.join(directory, *datetime.fromtimestamp(hour * 3600, UTC).strftime(HOURS).split("/"))
        if not FileSystems.exists(place):
            _make(place)
        encoded = io.BytesIO()
        fastavro.writer(encoded, _BARE, ({
            "subscription_name": subscription, "message_id": m.id, "publish_time": m.published,
            "attributes": dict(m.attributes), "data": m.data} for m in some), codec="deflate")
        # A reader takes a file by its suffix, and so takes none that is half written.
        name = FileSystems.join(place, f"{some[0].published}-{uuid.uuid4().hex[:12]}")
        with FileSystems.create(f"{name}.part", compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(encoded.getvalue())
        FileSystems.rename([f"{name}.part"], [f"{name}.avro"])


def _make(place: str) -> None:
    try:
        FileSystems.mkdirs(place)
    except OSError:  # another worker was quicker
        if not FileSystems.exists(place):
            raise


def files(directory: str, start: int | None, stop: int | None) -> list[list[str]]:
    """The files of each hour of publication from ``start`` to before ``stop`` (µs; None: all), hours and files in order."""
    by_hour: dict[str, list[str]] = {}
    for match in FileSystems.match([directory.rstrip("/") + "/**.avro"]):
        for metadata in match.metadata_list:
            hour = re.search(r"(\d{4}-\d\d-\d\d/\d\d)/[^/]*$", metadata.path)
            if hour:
                by_hour.setdefault(hour[1], []).append(metadata.path)
    out = []
    for name in sorted(by_hour):
        hour = round(datetime.strptime(name, HOURS).replace(tzinfo=UTC).timestamp()) * MICROS_PER_SECOND
        if (start is None or hour + MICROS_PER_HOUR > start) and (stop is None or hour < stop):
            out.append(sorted(by_hour[name]))
    return out


def manifest(directory: str, generation: int, start: int | None, stop: int | None) -> str:
    """Writes down what ``files`` finds now, for a generation to read; its place. A reader that begins again in the middle
    must find the files as they were, though others are written meanwhile."""
    place = FileSystems.join(directory, "manifests", f"generation-{generation}.json")
    listed = files(directory, start, stop)
    if not FileSystems.exists(FileSystems.split(place)[0]):
        _make(FileSystems.split(place)[0])
    with FileSystems.create(place, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(orjson.dumps(listed))
    return place


def listed(place: str) -> list[list[str]]:
    """The files of each hour that a manifest names."""
    with FileSystems.open(place, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return orjson.loads(file.read())


def read(path: str) -> Iterator[Message]:
    """The messages of a file, in its order."""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        for record in fastavro.reader(file):
            yield Message(record["message_id"], _micros(record["publish_time"]), record["attributes"], record["data"])


def _micros(time: int | datetime) -> int:
    if isinstance(time, int):
        return time
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
