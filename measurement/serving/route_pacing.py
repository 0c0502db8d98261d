"""`/v1/pacing` and `…/pacing`: what was booked against what was delivered of it."""

from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request
from starlette.responses import Response

from measurement.model.tables import DELIVERY
from measurement.model.views.pacing import PACING
from measurement.serving import routes
from measurement.serving.access import nobody
from measurement.serving.answer import rows_of
from measurement.serving.fresh import Fresh
from measurement.serving.keys import Key
from measurement.serving.problems import Problem
from measurement.serving.reports import Newest, Row
from measurement.serving.schemas import PACING_ANSWER, Unasked

MOST_ROWS = 10_000
_FRESH_SECONDS = 30  # it joins all bookings with all hours of their flights
_UNTIL = [c.name for c in PACING.columns].index("complete_until")


def install(app: FastAPI) -> None:
    state = app.state
    reports, newest = state.reports, state.newest[DELIVERY.name].get
    everyone = Fresh(lambda: (newest(), reports.pacing(None, MOST_ROWS + 1)), _FRESH_SECONDS, state.clock)

    def of_one(request: Request, advertiser_id: str, key: Key) -> Response:
        front, rows = newest(), reports.pacing(advertiser_id, MOST_ROWS + 1)
        if not rows and key.sales and not reports.known(advertiser_id):
            raise nobody()
        return _answer(request, front, rows)

    @app.get("/v1/pacing", name="pacing", summary="Of sales: all bookings and how they pace", response_model=None, operation_id="pacing",
             dependencies=[Depends(routes.BEARER)], responses=routes.responses(PACING_ANSWER, routes.ELSEWHERE, paged=False))
    async def _all(request: Request, key: Annotated[Key, Depends(state.access.of_sales)], asked: Annotated[Unasked, Query()]):
        async with state.summing:
            return await state.read(lambda: _answer(request, *everyone.get()))

    @app.get(f"{routes.ADVERTISER}/pacing", name="pacing_of", summary="An advertiser's bookings and how they pace", response_model=None,
             operation_id="pacing_of", dependencies=[Depends(routes.BEARER)],
             responses=routes.responses(PACING_ANSWER, routes.NOBODY | routes.ELSEWHERE, paged=False))
    async def _one(request: Request, advertiser_id: str, key: Annotated[Key, Depends(state.access.of_advertiser)],
                   asked: Annotated[Unasked, Query()]):
        async with state.summing:
            return await state.read(of_one, request, advertiser_id, key)


def _answer(request: Request, front: Newest | None, rows: list[Row]) -> Response:
    if len(rows) > MOST_ROWS:
        raise Problem(400, "too-many-rows", f"These are more than {MOST_ROWS:,} bookings; ask for an advertiser's.")
    as_of, until = (front.published_at, front.closed_until) if front else (None, None)
    if rows:
        until = rows[0][_UNTIL]  # by which they pace; in the cloud another service's than the front
    return routes.stated(request, {"rows": rows_of(PACING, rows)}, as_of, until)
