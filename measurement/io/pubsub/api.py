"""The Pub/Sub calls that a stream needs, on bare protobuf messages: the client's wrappers cost more than the job's work.

Channel, credentials and message types are google-cloud-pubsub's own.
"""

import grpc
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from google.pubsub_v1.types import pubsub as types

from measurement.io.endpoints import Endpoints

# A pull of the service's most messages, at their largest, and more.
_CHANNEL = [("grpc.max_receive_message_length", 64 << 20), ("grpc.keepalive_time_ms", 30_000)]
_SECONDS = 30.0  # for one acknowledgement; what is not acknowledged is only delivered again
_IDS_A_CALL = 2_500  # ack ids are up to some 200 bytes, a request at most 512 KiB


def channel(endpoints: Endpoints) -> grpc.Channel:
    if endpoints.pubsub is not None:
        return grpc.insecure_channel(endpoints.pubsub, _CHANNEL)
    return SubscriberGrpcTransport.create_channel(options=_CHANNEL)


class Subscriber:
    """One subscription (projects/P/subscriptions/S). Every call raises grpc.RpcError where the service does."""

    def __init__(self, endpoints: Endpoints, subscription: str):
        self._channel, self._subscription = channel(endpoints), subscription
        call = lambda name, request, answer: self._channel.unary_unary(  # noqa: E731
            f"/google.pubsub.v1.Subscriber/{name}", request_serializer=request.pb().SerializeToString,
            response_deserializer=answer)
        self._pull = call("Pull", types.PullRequest, types.PullResponse.pb().FromString)
        self._acknowledge = call("Acknowledge", types.AcknowledgeRequest, None)
        self._modify = call("ModifyAckDeadline", types.ModifyAckDeadlineRequest, None)

    def pull(self, most: int, seconds: float) -> list:
        """Up to ``most`` received messages (protobuf); [] if none came within ``seconds``."""
        request = types.PullRequest.pb()(subscription=self._subscription, max_messages=most)
        try:
            return list(self._pull(request, timeout=seconds).received_messages)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                return []
            raise

    def acknowledge(self, ids: list[str]) -> None:
        for some in _parts(ids):
            self._acknowledge(types.AcknowledgeRequest.pb()(subscription=self._subscription, ack_ids=some), timeout=_SECONDS)

    def extend(self, ids: list[str], seconds: int) -> None:
        """Gives the messages so many seconds from now; 0 gives them back."""
        for some in _parts(ids):
            request = types.ModifyAckDeadlineRequest.pb()(
                subscription=self._subscription, ack_ids=some, ack_deadline_seconds=seconds)
            self._modify(request, timeout=_SECONDS)

    def close(self) -> None:
        self._channel.close()


def _parts(ids: list[str]):
    return (ids[at : at + _IDS_A_CALL] for at in range(0, len(ids), _IDS_A_CALL))
