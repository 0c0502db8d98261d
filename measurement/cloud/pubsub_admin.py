"""Topics and subscriptions: made, and looked for before a job starts."""

from collections.abc import Callable

from google.api_core.exceptions import AlreadyExists, GoogleAPICallError, NotFound
from google.auth.exceptions import GoogleAuthError
from google.protobuf.duration_pb2 import Duration
from google.pubsub_v1.services.publisher import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber import SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from google.pubsub_v1.types import CloudStorageConfig, Subscription, Topic

from measurement.cloud.places import CloudError
from measurement.io.endpoints import Endpoints
from measurement.io.pubsub.api import channel
from measurement.io.retry import said

# As long as the service keeps what nobody has taken: an outage of a week loses nothing.
_RETENTION = Duration(seconds=7 * 24 * 3600)
ARCHIVE_SECONDS = 60  # at most so old is a message when its archive file is closed
_SECONDS = 10.0  # that a call waits for an answer


class PubSubAdmin:
    """CloudError, one line, for whatever the service refuses."""

    def __init__(self, endpoints: Endpoints):
        self.where = endpoints.pubsub or "pubsub.googleapis.com"
        try:
            at = channel(endpoints)
        except GoogleAuthError as error:
            raise CloudError(f"Pub/Sub: no credentials: {' '.join(str(error).split())}") from error
        self._publisher = PublisherClient(transport=PublisherGrpcTransport(channel=at))
        self._subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=at))

    def make_topic(self, topic: str) -> bool:
        """Whether it was not there."""
        return self._made(topic, lambda: self._publisher.create_topic(Topic(name=topic), timeout=_SECONDS, retry=None))

    def make_subscription(self, subscription: str, topic: str, ack_seconds: int) -> bool:
        """Whether it was not there; CloudError if it is there and another topic's."""
        request = Subscription(name=subscription, topic=topic, ack_deadline_seconds=ack_seconds,
                               message_retention_duration=_RETENTION, expiration_policy={})  # never expires
        made = self._made(subscription, lambda: self._subscriber.create_subscription(request, timeout=_SECONDS, retry=None))
        if not made and (other := self.subscription(subscription).topic) != topic:
            raise CloudError(f"{subscription}: is there, of topic {other} and not {topic}")
        return made

    def make_archive(self, subscription: str, topic: str, directory: str) -> bool:
        """A Cloud Storage subscription that writes Avro files with metadata by hour (measurement/io/archive.py)."""
        bucket, _, prefix = directory.removeprefix("gs://").partition("/")
        config = CloudStorageConfig(
            bucket=bucket, filename_prefix=f"{prefix.rstrip('/')}/" if prefix else "", filename_suffix=".avro",
            filename_datetime_format="YYYY-MM-DD/hh/mm_ssZ", max_duration=Duration(seconds=ARCHIVE_SECONDS),
            avro_config=CloudStorageConfig.AvroConfig(write_metadata=True))
        request = Subscription(name=subscription, topic=topic, cloud_storage_config=config,
                               message_retention_duration=_RETENTION, expiration_policy={})
        return self._made(subscription, lambda: self._subscriber.create_subscription(request, timeout=_SECONDS, retry=None))

    def subscription(self, name: str) -> Subscription:
        return self._there(name, lambda: self._subscriber.get_subscription(subscription=name, timeout=_SECONDS, retry=None))

    def topic(self, name: str) -> Topic:
        return self._there(name, lambda: self._publisher.get_topic(topic=name, timeout=_SECONDS, retry=None))

    def _there(self, name: str, get: Callable):
        try:
            return get()
        except NotFound as error:
            raise CloudError(f"{name}: not there; run `measurement provision`") from error
        except GoogleAPICallError as error:
            raise CloudError(f"Pub/Sub at {self.where}, {name}: {said(error)}") from error

    def _made(self, name: str, make: Callable) -> bool:
        try:
            make()
        except AlreadyExists:
            return False
        except GoogleAPICallError as error:
            raise CloudError(f"Pub/Sub at {self.where}, {name}: {said(error)}") from error
        return True
