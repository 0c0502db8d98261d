"""The delivery job on the cloud's services: a subscription, or the archive of one, to BigQuery and Bigtable."""

import apache_beam as beam
from apache_beam.io.unbounded_source import ReadFromUnboundedSource

from jobs.delivery import Delivery
from measurement.io.bigquery import WriteBigQuery
from measurement.io.bigtable import WriteBigtable
from measurement.io.endpoints import Endpoints
from measurement.io.pubsub.source import PubSubSource
from measurement.transforms.config import RunConfig
from measurement.transforms.distribute import Rows
from measurement.transforms.end import End

_ELEMENTS_A_BUNDLE = 4
_POLL_SECONDS = 0.05


def stream(p: beam.Pipeline, source: PubSubSource, config: RunConfig, endpoints: Endpoints, dataset: str, instance: str,
           read_seconds: float = 1.0) -> None:
    """``read_seconds``: a bundle reads so long at most; well below an engine's checkpoint interval, which waits for it."""
    rows = (
        p
        | "Read" >> ReadFromUnboundedSource(source, _POLL_SECONDS, _ELEMENTS_A_BUNDLE, read_seconds)
        | "Delivery" >> Delivery(config)
        # A sink waits for its service; the totals' keys must not wait with it. And what a sink is to write again after a
        # failure is then what it was to write before.
        | "Apart" >> beam.Reshuffle()
    )
    served = rows | "Bigtable" >> beam.ParDo(WriteBigtable(endpoints, instance)).with_output_types(Rows)
    served | "Served" >> End()
    # Bigtable's latency is BigQuery's to store, and in another stage, so that neither service waits for the other.
    to_store = (rows, served | "Measured" >> beam.Reshuffle()) | "To store" >> beam.Flatten()
    to_store | "BigQuery" >> beam.ParDo(WriteBigQuery(endpoints, dataset)) | "Stored" >> End()
