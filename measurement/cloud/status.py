"""`measurement status` on the cloud: the service levels, and what the tables hold."""

from measurement.cloud.monitor import CloudPlace
from measurement.cloud.places import CloudError, Places
from measurement.cloud.reconcile import generation, query_of, reconcile
from measurement.io.bigquery_admin import BigQueryError, Reader
from measurement.io.retry import SinkError
from measurement.monitors.levels import levels
from measurement.monitors.slo import Slo
from measurement.monitors.status import Status, of_tables
from measurement.monitors.times import instant


def status(places: Places, profile: str, slo: Slo, now: int) -> Status:
    """CloudError where something cannot be read."""
    result = reconcile(places)
    place = CloudPlace(places, profile, writes=False)
    try:
        found = levels(place, slo, now, result)
        last = generation(places)
        with Reader(places.endpoints, places.dataset) as reader:
            return of_tables(query_of(reader), places.dataset, result, last.number, instant(last.began), None, found)
    except (BigQueryError, SinkError) as error:
        raise CloudError(str(error)) from error
    finally:
        place.close()
