"""`measurement replay` on the cloud: rejects, as they were received, back to the topic; nothing is counted twice.

What is accepted now is counted, what has been counted meanwhile is a duplicate, and what is still wrong is rejected again,
as a message of its own.
"""

from measurement.cloud.places import CloudError, Places
from measurement.cloud.publish import Published, send
from measurement.cloud.pubsub_admin import PubSubAdmin
from measurement.io.bigquery_admin import BigQueryError, Reader
from measurement.io.framing import READER_SCHEMA
from measurement.io.pubsub.messages import SINGLE_OBJECT
from measurement.model.tables import RESOLVED


def replay(places: Places, reasons: list[str]) -> Published:
    """Publishes the rejects that stand, of some reasons or ([]) all, to the subscription's topic. CloudError as elsewhere."""
    topic = PubSubAdmin(places.endpoints).subscription(places.subscription).topic
    chosen = f"AND reason IN ({', '.join(repr(r) for r in reasons)})" if reasons else ""
    try:
        with Reader(places.endpoints, places.dataset) as reader:
            rows = reader.query(f"SELECT payload, encoding, schema_id FROM `{places.dataset}.rejects_latest` "
                                f"WHERE reason <> '{RESOLVED}' AND length(payload) > 0 {chosen} ORDER BY received_at, reject_id")
    except BigQueryError as error:
        raise CloudError(str(error)) from error
    done = Published()
    send(places.endpoints, topic, _messages(rows.to_pylist(), done), lambda: None)
    return done


def _messages(rows: list[dict], done: Published):
    for row in rows:
        data = row["payload"]
        if row["encoding"] == "avro" and row["schema_id"] not in (None, READER_SCHEMA.id):
            data = SINGLE_OBJECT + bytes.fromhex(row["schema_id"]) + data
        done.events, done.messages, done.bytes = done.events + 1, done.messages + 1, done.bytes + len(data)
        yield data
