"""Writers' schemas from Pub/Sub's schema service, by name and revision."""

from collections.abc import Callable

from google.api_core.exceptions import InvalidArgument, NotFound
from google.pubsub_v1.services.schema_service import SchemaServiceClient
from google.pubsub_v1.services.schema_service.transports import SchemaServiceGrpcTransport

from measurement.io.endpoints import Endpoints
from measurement.io.pubsub.api import channel


def look_up(endpoints: Endpoints) -> Callable[[str, str], str | None]:
    """A function from (schema's name, revision) to its text, None where there is none. Outages are raised."""
    client: list[SchemaServiceClient] = []

    def text(name: str, revision: str) -> str | None:
        if not client:
            client.append(SchemaServiceClient(transport=SchemaServiceGrpcTransport(channel=channel(endpoints))))
        try:
            return client[0].get_schema(name=f"{name}@{revision}" if revision else name).definition
        except (NotFound, InvalidArgument):
            return None

    return text
