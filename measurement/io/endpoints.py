"""Where the cloud's services are: the real ones, or emulators at addresses of their own. Nothing else tells the two apart."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoints:
    """host:port of each service's emulator; None is the real service, with the machine's own credentials."""

    pubsub: str | None = None
    bigtable: str | None = None
    bigquery: str | None = None  # REST
    bigquery_storage: str | None = None  # gRPC

    @property
    def environment(self) -> dict[str, str]:
        """What a process is told that is to go by these emulators, all of them given."""
        return {"PUBSUB_EMULATOR_HOST": self.pubsub, "BIGTABLE_EMULATOR_HOST": self.bigtable,
                "BIGQUERY_EMULATOR_HOST": f"http://{self.bigquery}", "BIGQUERY_STORAGE_EMULATOR_HOST": self.bigquery_storage}


def emulators() -> Endpoints:
    """What the environment says, by the names that the services' own clients read; else each emulator's usual port."""
    at = os.environ.get
    return Endpoints(
        at("PUBSUB_EMULATOR_HOST", "127.0.0.1:8085"), at("BIGTABLE_EMULATOR_HOST", "127.0.0.1:8086"),
        at("BIGQUERY_EMULATOR_HOST", "127.0.0.1:9050").removeprefix("http://"),
        at("BIGQUERY_STORAGE_EMULATOR_HOST", "127.0.0.1:9060"))
