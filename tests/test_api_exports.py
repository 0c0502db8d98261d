"""Exports over HTTP: the bytes that the command writes, for sales alone, and nothing left behind."""

import io
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from exported import D, DAY, Made, delivered, earned, restated, whole_days
from serving import Answer, Asking, Keys, serving

from measurement.exports.manifest import ENDING
from measurement.serving.warehouses import DuckDbReports

PATH = "/v1/advertisers/adv-1/exports"
RANGE = {"from_": "2026-03-02T00:00:00Z", "to": "2026-03-04T00:00:00Z"}
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Keys:
    made = Keys(tmp_path_factory.mktemp("keys") / "keys.json")
    made.own = made.file.make("adv-1")[1]
    return made


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Made:
    odd = "Ä 'o\\/..\""
    return Made(tmp_path_factory.mktemp("stored") / "out",
                [*whole_days(D + 35 * DAY), *(delivered(D + n * HOUR, n=n, campaign_id=f"c{n % 3}") for n in range(40)),
                 restated(delivered(D + HOUR, campaign_id="c1"), 1, impressions=3), delivered(D, odd)],
                [*(earned(D + n * HOUR, 3, campaign=f"c{n % 3}") for n in range(40)), earned(D, 25)])


@pytest.fixture(scope="module")
def api(stored, keys) -> Iterator[Asking]:
    with serving(DuckDbReports(stored.out), keys.ring()) as asking:
        yield asking


def unpacked(got: Answer) -> dict[str, bytes]:
    assert (got.status, got.headers["Content-Type"], got.headers["Cache-Control"]) == (200, "application/zip", "no-store"), got.body
    with zipfile.ZipFile(io.BytesIO(got.body)) as packed:
        assert packed.testzip() is None
        return {name: packed.read(name) for name in packed.namelist()}


def as_made(files: dict[str, bytes]) -> dict:
    """Manifests without when they were made."""
    return {name: {**json.loads(content), "created_at": None} if name.endswith(ENDING) else content for name, content in files.items()}


@pytest.mark.parametrize("table", ["delivery", "attribution"])
@pytest.mark.parametrize("format_, grain, campaign", [("csv", "hour", None), ("parquet", "day", None), ("xlsx", "hour", "c1")])
def test_an_export_is_what_the_command_writes(api, keys, stored, tmp_path, table, format_, grain, campaign):
    got = api.get(PATH, keys.sales, table=table, format=format_, grain=grain, **RANGE, **({"campaign_id": campaign} if campaign else {}))
    flags = ["--advertiser", "adv-1", "--from", "2026-03-02", "--to", "2026-03-04", "--table", table, "--format", format_, "--grain", grain,
             "--warehouse", stored.out, "--out", tmp_path, *(["--campaign", campaign] if campaign else [])]
    subprocess.run([sys.executable, "-m", "measurement.cli", "export", *map(str, flags)], check=True, timeout=120, capture_output=True)
    written = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert as_made(unpacked(got)) == as_made(written) and len(written) == 2
    name = min(written).replace("/", "-").removesuffix(f".{format_}")
    assert got.headers["Content-Disposition"] == f'attachment; filename="{name}.zip"'


def test_figures_of_few_conversions_are_withheld(api, keys):
    [manifest] = [json.loads(v) for n, v in unpacked(api.get(PATH, keys.sales, table="attribution", **RANGE)).items() if n.endswith(ENDING)]
    assert manifest["small_cells"] == 10 and manifest["withheld"]["rows"] > 0


@pytest.mark.parametrize("query, words", [
    ({"from_": "2026-03-02T00:30:00Z", "to": "2026-03-03T00:00:00Z"}, "not a whole hour"),
    ({"from_": "2026-03-02T00:00:00.000001Z", "to": "2026-03-03T00:00:00Z"}, "not a whole hour"),
    ({"from_": "2026-03-02T05:00:00Z", "to": "2026-03-03T00:00:00Z", "grain": "day"}, "takes whole UTC days"),
    ({"from_": "2026-03-02T00:00:00%2B02:00".replace("%2B", "+"), "to": "2026-03-03T00:00:00Z", "grain": "day"}, "takes whole UTC days")])
def test_a_range_that_no_export_has_is_refused_in_its_words(api, keys, query, words):
    got = api.get(PATH, keys.sales, table="delivery", **query)
    assert got.status == 400 and words in got.json["detail"] and "--" not in got.json["detail"]


@pytest.mark.parametrize("query", [{}, {"table": "ledger"}, {"table": "delivery", "format": "pdf"}, {"table": "delivery", "grain": "week"},
                                   {"table": "delivery", "small_cells": "0"}, {"table": "delivery", "out": "/tmp"}, {"table": "delivery", "limit": "1"}])
def test_parameters_that_are_none_are_refused(api, keys, query):
    assert api.get(PATH, keys.sales, **RANGE, **query).status == 400
    assert api.get(PATH, keys.sales, table="delivery", from_="9999-12-31T00:00:00Z", to="9999-12-31T23:00:00Z").status == 400


def test_exports_are_for_sales_and_of_whom_there_is(api, keys):
    assert [api.get(PATH, key, table="delivery", **RANGE).status for key in (None, keys.a, keys.own)] == [401, 403, 403]
    for nobody in ("nobody", "test:adv-1", "", "x'%20OR%20'1'='1", "a%00b", "adv-1%00", "%5C", "%22"):
        assert api.get(f"/v1/advertisers/{nobody}/exports", keys.sales, table="delivery", **RANGE).status == 404, nobody


def test_an_odd_advertiser_has_a_safe_name(api, keys):
    got = api.get("/v1/advertisers/%C3%84%20'o%5C%2F..%22/exports", keys.sales, table="delivery", **RANGE)
    assert len(unpacked(got)) == 2 and all(".." not in name for name in unpacked(got))


def test_nothing_in_the_range_is_a_file_of_its_header(api, keys):
    files = unpacked(api.get(PATH, keys.sales, table="delivery", from_="2026-02-01T00:00:00Z", to="2026-02-02T00:00:00Z"))
    [rows] = [content for name, content in files.items() if name.endswith(".csv")]
    assert rows.startswith(b'\xef\xbb\xbf"window_start","advertiser_id"') and rows.count(b"\n") == 1


def test_many_at_once_are_whole_and_leave_nothing_behind(api, keys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: api.get(PATH, keys.sales, table=("delivery", "attribution")[n % 2], **RANGE), range(6)))
    assert len({repr(as_made(unpacked(got))) for got in answers}) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_is_the_servers_fault_and_says_nothing_of_its_places(api, keys, tmp_path, monkeypatch):
    monkeypatch.setattr("measurement.exports.destination.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    got = api.get(PATH, keys.sales, table="delivery", **RANGE)
    assert got.status == 503 and b"space" not in got.body and tempfile.gettempdir().encode() not in got.body


def test_what_a_format_cannot_hold_is_the_requests_fault(api, keys, monkeypatch):
    monkeypatch.setattr("measurement.exports.formats.SHEET_ROWS", 10)
    got = api.get(PATH, keys.sales, table="delivery", format="xlsx", **RANGE)
    assert got.status == 400 and got.json["detail"].startswith("format xlsx: ") and "take csv or parquet" in got.json["detail"]


def test_a_warehouse_that_is_gone_is_told_without_its_name(tmp_path, keys):
    with serving(DuckDbReports(tmp_path), keys.ring()) as api:
        got = api.get(PATH, keys.sales, table="delivery", **RANGE)
    assert got.status == 503 and str(tmp_path).encode() not in got.body and Path(tmp_path).is_dir()
