"""`…/sums`: a table's hourly rows summed over the range by what is asked."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from starlette.responses import Response

from measurement.model.tables import ATTRIBUTION, DELIVERY, INVALID_TRAFFIC, Table
from measurement.serving import routes
from measurement.serving.access import nobody
from measurement.serving.answer import rows_of
from measurement.serving.keys import Key
from measurement.serving.reports import Reports, Scope, standing
from measurement.serving.schemas import SUMMED_BY, SUMS_ANSWERS
from measurement.serving.sums import sums


def install(app: FastAPI) -> None:
    access = app.state.access
    _install(app, DELIVERY, access.of_advertiser, "Delivery summed over the range", routes.NOBODY)
    _install(app, ATTRIBUTION, access.of_advertiser, "Attribution summed over the range", routes.NOBODY)
    _install(app, INVALID_TRAFFIC, access.sales_of_advertiser, "Of sales: invalid traffic summed over the range",
             routes.NOBODY | routes.ELSEWHERE)


def _install(app: FastAPI, table: Table, depends: Any, summary: str, documented: dict[int, str]) -> None:
    state, query = app.state, SUMMED_BY[table.name]

    async def endpoint(request: Request, advertiser_id: str, key: Annotated[Key, Depends(depends)], asked: Annotated[query, Query()]):
        async with state.summing:
            return await state.read(_sums, state.reports, state.newest[table.name].get, table, advertiser_id, key, asked, request)

    name = f"{table.name}_sums"
    app.get(f"{routes.ADVERTISER}/{table.name}/sums", name=name, summary=summary, response_model=None, operation_id=name,
            dependencies=[Depends(routes.BEARER)], responses=routes.responses(SUMS_ANSWERS[table.name], documented, paged=False))(endpoint)


def _sums(reports: Reports, newest, table: Table, advertiser_id: str, key: Key, asked, request: Request) -> Response:
    front = newest()  # before the rows: what was closed then is closed in them
    found = sums(reports, Scope(table, advertiser_id, asked.from_, asked.to, asked.campaign_id), tuple(asked.by.split(",")))
    if not found.rows and key.sales and not reports.known(advertiser_id):
        raise nobody()
    return routes.stated(request, {"rows": rows_of(found.table, found.rows)}, *standing(front, found.table, found.rows, found.open_from))
