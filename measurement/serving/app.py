"""The report API (contract section 8) as a FastAPI application."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, Query, Request
from starlette.responses import Response

from measurement.model.tables import ATTRIBUTION, DELIVERY, INVALID_TRAFFIC, Table
from measurement.serving import problems, route_exports, route_pacing, route_page, route_sums, routes
from measurement.serving.access import Access, nobody
from measurement.serving.answer import rows_of
from measurement.serving.fresh import Fresh
from measurement.serving.guard import Guard
from measurement.serving.keys import Key, KeyRing
from measurement.serving.limits import Limits
from measurement.serving.paging import after, cursor, days, hours
from measurement.serving.reports import Newest, Reports, Scope, standing
from measurement.serving.schemas import ANSWERS, AdvertisersAnswer, Asked, Grain, Paged, ProblemDocument
from measurement.serving.times import MICROS_PER_DAY, text

# Reading short rows is a thousand steps that each let go of the interpreter's lock, and threads that read at once take it from one
# another: with two or four the p99 of a campaign-week was several times that with one. So what is surely short is read by one thread,
# and whatever may be long does not stand before it.
LONG_THREADS = 3
_SHORT_MICROS = 8 * MICROS_PER_DAY
_FRESH_SECONDS, _OLDEST_SECONDS = 5, 60
_ADVERTISERS_SECONDS = 30
_TITLE = "ad-measurement reports"
_ABOUT = """Hourly figures of one advertiser, counted by event time in UTC, each row with its status: provisional while its hour is
open, final at its close, restated after any later change. Numbers are absolute. A row of zeros is one of which nothing was left."""


def create_app(reports: Reports, keys: KeyRing, limits: Limits = Limits(), clock: Callable[[], float] = time.monotonic) -> FastAPI:
    """``clock``: seconds, of rates and of what is kept for some seconds. Closes ``reports`` when it ends. ``app.state`` has what
    further routes need: ``reports``, ``access``, ``clock``, ``read`` (runs a function that reads in a thread), ``newest`` (a table's
    front, by its name), ``summing`` (held by whoever reads very much) and ``exporting`` (the threads for what takes minutes)."""
    short, long = ThreadPoolExecutor(1, thread_name_prefix="reads-short"), ThreadPoolExecutor(LONG_THREADS, thread_name_prefix="reads")
    exporting = ThreadPoolExecutor(route_exports.AT_ONCE, thread_name_prefix="exports")

    @asynccontextmanager
    async def lifespan(_: FastAPI):
        yield
        for pool in (short, long, exporting):
            pool.shutdown(cancel_futures=True)
        reports.close()

    app = FastAPI(title=_TITLE, version="1", description=_ABOUT, lifespan=lifespan, docs_url=None, redoc_url=None,
                  redirect_slashes=False, separate_input_output_schemas=False)
    problems.install(app)
    access = Access(keys, limits, clock)
    newest = {t.name: Fresh(lambda t=t: reports.newest(t), _FRESH_SECONDS, clock, _OLDEST_SECONDS)
              for t in (DELIVERY, ATTRIBUTION, INVALID_TRAFFIC)}
    advertisers = Fresh(reports.advertisers, _ADVERTISERS_SECONDS, clock, 2 * _OLDEST_SECONDS)
    summing = asyncio.Semaphore(limits.days_at_once)
    under_way = 0

    async def read(work: Callable[..., Any], *arguments: Any, pool: ThreadPoolExecutor = long) -> Any:
        nonlocal under_way
        if under_way >= limits.under_way:
            raise problems.unavailable()
        under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)
        finally:
            under_way -= 1

    state = app.state
    state.reports, state.access, state.clock, state.read = reports, access, clock, read
    state.newest, state.summing, state.exporting = newest, summing, exporting

    def route(table: Table, path: str, depends: Callable, summary: str, documented: dict[int, str]) -> None:
        async def endpoint(request: Request, advertiser_id: str, key: Annotated[Key, Depends(depends)], asked: Annotated[Asked, Query()]):
            def work() -> Response:
                return _rows(reports, newest[table.name].get, table, advertiser_id, key, asked, request)

            if asked.grain is Grain.hour:
                return await read(work, pool=short if table.name in reports.short and _is_short(asked) else long)
            async with summing:
                return await read(work)

        app.get(path, name=table.name, summary=summary, response_model=None, dependencies=[Depends(routes.BEARER)],
                responses=routes.responses(ANSWERS[table.name], documented), operation_id=table.name)(endpoint)

    of = "/v1/advertisers/{advertiser_id:path}/"
    route(DELIVERY, f"{of}delivery", access.of_advertiser, "Impressions, clicks, viewability, quartiles and spend", routes.NOBODY)
    route(ATTRIBUTION, f"{of}attribution", access.of_advertiser, "Conversions and their value by what earned them", routes.NOBODY)
    route(INVALID_TRAFFIC, f"{of}invalid_traffic", access.sales_of_advertiser, "Of sales: what is in gross and not in net, by reason",
          routes.NOBODY | routes.ELSEWHERE)

    route_sums.install(app)
    route_pacing.install(app)
    route_exports.install(app)
    route_page.install(app)

    @app.get("/v1/advertisers", name="advertisers", summary="Of sales: all advertisers and how fresh their figures are",
             response_model=None, dependencies=[Depends(routes.BEARER)], responses=routes.responses(AdvertisersAnswer, {}),
             operation_id="advertisers")
    async def _advertisers(request: Request, key: Annotated[Key, Depends(access.of_sales)], asked: Annotated[Paged, Query()]):
        return await read(_list, advertisers.get, newest[DELIVERY.name].get, asked, request)

    @app.get("/healthz", summary="Whether the server is alive", response_model=None, responses={200: {"description": "It is."}})
    async def _alive():
        return Response(b'{"status":"ok"}', media_type="application/json", headers={"Cache-Control": "no-store"})

    @app.get("/readyz", summary="Whether figures and keys can be read", response_model=None,
             responses={200: {"description": "They can."}, 503: routes.problem(503)})
    async def _ready():
        keys.check()
        await read(ready.get)
        return await _alive()

    ready = Fresh(reports.check, _FRESH_SECONDS, clock)
    app.openapi = _without_422(app)
    app.add_middleware(Guard)
    return app


def _is_short(asked: Asked) -> bool:
    return asked.campaign_id is not None and asked.to - asked.from_ <= _SHORT_MICROS


def _rows(reports: Reports, newest: Callable[[], Newest | None], table: Table, advertiser_id: str, key: Key, asked: Asked,
          request: Request) -> Response:
    scope = Scope(table, advertiser_id, asked.from_, asked.to, asked.campaign_id)
    told = table.name, advertiser_id, asked.from_, asked.to, asked.campaign_id, str(asked.grain)
    front = newest()  # before the rows: what was closed then is closed in them
    begin = None if asked.cursor is None else after(told, asked.cursor)
    page = (hours if asked.grain is Grain.hour else days)(reports, scope, begin, asked.limit)
    if not page.rows and key.sales and not reports.known(advertiser_id):
        raise nobody()  # a name that was mistyped; an advertiser's own key vouches for it
    as_of, until = standing(front, table, page.rows, page.open_from)
    return _paged(request, {"rows": rows_of(table, page.rows)}, as_of, until, None if page.after is None else cursor(told, page.after))


def _list(advertisers: Callable, newest: Callable[[], Newest | None], asked: Paged, request: Request) -> Response:
    front = newest()
    begin = None if asked.cursor is None else after(("advertisers",), asked.cursor)[_LIST_HEAD:-1].decode("utf-8", "replace")
    listed = [a for a in advertisers() if begin is None or a.advertiser_id > begin]
    shown, more = listed[: asked.limit], len(listed) > asked.limit
    made = [{"advertiser_id": a.advertiser_id, "newest_hour": text(a.newest_hour), "published_at": text(a.published_at)} for a in shown]
    next_ = cursor(("advertisers",), bytes(_LIST_HEAD) + shown[-1].advertiser_id.encode() + b"\0") if more else None
    return _paged(request, {"advertisers": made}, front and front.published_at, front and front.closed_until, next_)


_LIST_HEAD = 4  # bytes that stand for the hour that a position begins with


def _paged(request: Request, content: dict, as_of: int | None, until: int | None, next_: str | None) -> Response:
    asked = {**request.query_params, "cursor": next_}
    link = None if next_ is None else f'<?{urlencode(asked)}>; rel="next"'  # of the same path
    return routes.stated(request, content, as_of, until, {"next": next_}, link)


def _without_422(app: FastAPI) -> Callable[[], dict]:
    """FastAPI documents a validation error of its own, which is none of ours."""
    made = app.openapi

    def openapi() -> dict:
        if app.openapi_schema is None:
            document = made()
            for path in document["paths"].values():
                path["get"]["responses"].pop("422", None)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= problem.pop("$defs") | {"ProblemDocument": problem}
            app.openapi_schema = document
        return app.openapi_schema

    return openapi
