"""The tables in a Bigtable instance: made, and looked for before a job starts. The instance itself is given."""

from google.api_core.exceptions import AlreadyExists, GoogleAPICallError, NotFound
from google.cloud.bigtable_admin_v2.types import ModifyColumnFamiliesRequest

from measurement.io.bigtable_service import FAMILY, SERVED, Service
from measurement.io.control import FAMILIES as CONTROL_FAMILIES
from measurement.io.control import TABLE as CONTROL
from measurement.io.endpoints import Endpoints
from measurement.io.retry import Patience, SinkError, retrying, said

_SECONDS = 10  # that a check waits for an answer
# Old versions go by their number: the highest timestamp is the latest, and its age says nothing (a replay's is old too).
_ONE_VERSION = {"gc_rule": {"max_num_versions": 1}}
TABLES = {**{name: (FAMILY,) for name in SERVED}, CONTROL: CONTROL_FAMILIES}


def provision(endpoints: Endpoints, instance: str, patience: Patience = Patience(60)) -> None:
    """Tables, families and their rules, as far as they are not there; harmless where they are. SinkError where refused."""
    with Service(endpoints, instance) as service:
        for name, families in TABLES.items():
            retrying(f"Bigtable {service.table(name)}", lambda timeout: _make(service, name, families, timeout), patience)


def _make(service: Service, name: str, families: tuple[str, ...], timeout: float) -> None:
    table = {"column_families": {family: _ONE_VERSION for family in families}}
    try:
        service.admin.create_table(
            request={"parent": service.instance, "table_id": name, "table": table}, timeout=timeout, retry=None)
    except AlreadyExists:
        there = service.admin.get_table(name=service.table(name), timeout=timeout, retry=None).column_families
        changes = [{"id": family, "update" if family in there else "create": _ONE_VERSION} for family in families]
        service.admin.modify_column_families(
            request=ModifyColumnFamiliesRequest(name=service.table(name), modifications=changes), timeout=timeout, retry=None)


def check(endpoints: Endpoints, instance: str) -> None:
    """SinkError, one line, of the first thing that is missing: Bigtable, permission, instance, table or family."""
    with Service(endpoints, instance) as service:
        for name, families in TABLES.items():
            path = service.table(name)
            try:
                there = service.admin.get_table(name=path, timeout=_SECONDS, retry=None).column_families
            except NotFound as error:
                raise SinkError(f"Bigtable {path}: {_lack(service)}") from error
            except GoogleAPICallError as error:
                raise SinkError(f"Bigtable at {service.where}, {path}: {said(error)}") from error
            if lacking := [family for family in families if family not in there]:
                raise SinkError(f"Bigtable {path}: no family {', '.join(lacking)}; run `measurement provision`")


def _lack(service: Service) -> str:
    """What it is that a table was not found for."""
    try:
        service.admin.list_tables(parent=service.instance, timeout=_SECONDS, retry=None)
    except NotFound:
        return "no such instance"
    except GoogleAPICallError as error:
        return f"no such table or no such instance, {said(error)}"
    return "no such table; run `measurement provision`"
