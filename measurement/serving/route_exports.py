"""`…/exports`: the files that `measurement export` writes, in a zip."""

import asyncio
import io
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Annotated

from fastapi import Depends, FastAPI, Query, Request
from starlette.responses import Response, StreamingResponse

from measurement.exports import command
from measurement.exports.formats import Unfit
from measurement.exports.request import EXPORTED, Grain, check_range
from measurement.exports.request import Request as Wanted
from measurement.failure import Failure
from measurement.serving import routes
from measurement.serving.access import nobody
from measurement.serving.keys import Key
from measurement.serving.problems import Problem
from measurement.serving.reports import Reports, Unavailable
from measurement.serving.schemas import Export

AT_ONCE = 2  # each may have a year of an advertiser's rows in memory
_CHUNK = 1 << 18
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Zip(StreamingResponse):
    media_type = "application/zip"


def install(app: FastAPI) -> None:
    state, making = app.state, asyncio.Semaphore(AT_ONCE)

    @app.get(f"{routes.ADVERTISER}/exports", name="exports", summary="Of sales: a table's rows as a file with its manifest, in a zip",
             response_model=None, response_class=_Zip, operation_id="exports", dependencies=[Depends(routes.BEARER)],
             responses=_responses())
    async def _export(request: Request, advertiser_id: str, key: Annotated[Key, Depends(state.access.sales_of_advertiser)],
                      asked: Annotated[Export, Query()]):
        wanted = Wanted(advertiser_id, EXPORTED[asked.table], _at(asked.from_), _at(asked.to), Grain(asked.grain), asked.format,
                        asked.campaign_id)
        try:
            check_range(wanted.start, wanted.stop, wanted.grain)
        except Failure as error:
            raise _refused(error) from error
        async with making:
            file = await state.read(_packed, state.reports, wanted, pool=state.exporting)
        return _streamed(file, f"{wanted.stem.replace('/', '-')}.zip")


def _packed(reports: Reports, wanted: Wanted) -> IO[bytes]:
    """The zip, in a file without a name."""
    source = reports.source()
    if not reports.known(wanted.advertiser) or not source.knows(wanted.advertiser):  # the first takes any text as a parameter
        raise nobody()
    packed = tempfile.TemporaryFile()
    try:
        with tempfile.TemporaryDirectory(prefix="measurement-export-") as out, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as into:
            command.export(source, out, [wanted], {}, lambda: datetime.now(UTC), lambda _: None)
            for path in sorted(Path(out).rglob("*")):
                if path.is_file():
                    into.write(path, path.relative_to(out))
    except BaseException as error:
        packed.close()
        if isinstance(error, Unfit):
            raise _refused(error) from error
        if isinstance(error, Failure | OSError):
            raise Unavailable(str(error)) from error
        raise
    return packed


def _streamed(file: IO[bytes], name: str) -> Response:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Length": str(size), "Cache-Control": "no-store"}
    return _Zip(_chunks(file), headers=headers)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Read as it is taken: a slow client keeps a chunk in memory and no more."""
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _refused(error: Failure) -> Problem:
    return Problem(400, "parameters", str(error).replace("--", ""))  # named as flags there, as parameters here


def _at(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _responses() -> dict[int | str, dict]:
    headers = {"Content-Disposition": {"schema": {"type": "string"}, "description": "attachment, with a name for the file."}}
    found = {200: {"description": "A zip of the file and its manifest.", "headers": headers}}
    return found | routes.problems_of(routes.NOBODY | routes.ELSEWHERE)
