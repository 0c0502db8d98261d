"""`measurement export`: formats read back, manifests, what changed since, faults, wrong use."""

import csv
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import fsspec
import openpyxl
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exported import CLOSED, D, DAY, HOUR, Made, delivered, earned, read_manifest, restated, whole_days
from hypothesis import given
from hypothesis import strategies as st
from openpyxl.utils.escape import unescape

from measurement.exports import command, destination, formats
from measurement.exports.destination import put_export, whole
from measurement.exports.request import Format, Grain, Request, safe
from measurement.exports.rows import columns, shaped
from measurement.exports.source import local
from measurement.exports.told import month
from measurement.failure import Failure
from measurement.model.tables import ATTRIBUTION, DELIVERY

NOW = datetime(2026, 5, 1, tzinfo=UTC)
AWKWARD = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "'quoted", "a;=1", "a,=HYPERLINK(\"http://x\")", "a\n=1", "＝1", "a|@b", "-", "plain",
           "žluť 🐎", "a\"b", "a,b", "=cmd|' /C calc'!A0", "1e5", "007", "2026-03-02", "TRUE", "http://x", "x" * 300]


def said(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "measurement.cli", "export", *map(str, arguments)], capture_output=True, text=True, timeout=120)


def request(table=DELIVERY, **other) -> Request:
    return Request(**{"advertiser": "adv-1", "table": table, "start": D, "stop": D + DAY, "grain": Grain.hour, "format": Format.csv, **other})


def made(out: Path, *requests: Request, of: Path, earlier=()) -> list[command.Written]:
    return command.export(local(of), str(out), requests, dict(earlier), lambda: NOW, lambda _: None)


def of_csv(path: Path) -> list[list]:
    """Texts as they were, numbers as numbers, NULL as None."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        head, *rows = csv.reader(file)
    read = {"revision": int, **{c.name: int if c.type == "INT64" else Decimal for t in (DELIVERY, ATTRIBUTION) for c in t.values}}
    return [[None if not v else read.get(name, formats.unguarded)(v) for name, v in zip(head, row)] for row in rows]


def of_xlsx(path: Path) -> list[list]:
    book = openpyxl.load_workbook(path)
    sheet = book["rows"]
    assert sheet.freeze_panes == "A2" and sheet.auto_filter.ref.startswith("A1:")
    assert not any(cell.data_type == "f" for row in sheet for cell in row)
    return [[unescape(cell.value) if isinstance(cell.value, str) else cell.value for cell in row] for row in list(sheet)[1:]]


def plain(rows: pa.Table, time=lambda t: t.isoformat().replace("+00:00", "Z")) -> list[list]:
    return [[time(v) if isinstance(v, datetime) else v for v in row.values()] for row in rows.to_pylist()]


@pytest.fixture
def stored(tmp_path) -> Made:
    delivery = [delivered(D + n % 3 * HOUR, n=n + 1, creative_id=text, published_at=CLOSED.replace(microsecond=123456))
                for n, text in enumerate([None, *AWKWARD])]
    delivery += [delivered(D + 5 * HOUR, status="provisional", spend_micros=2**62 + 1), delivered(D, "test:adv-1", 100)]
    attribution = [earned(D, "1.333333333", "=c1"), earned(D + HOUR, "0.000000001", "c1"), earned(D + HOUR, 0, None, currency=None)]
    return Made(tmp_path / "run", [*whole_days(D + DAY), *delivery], attribution)


# -- formats ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("table", [DELIVERY, ATTRIBUTION], ids=lambda t: t.name)
@pytest.mark.parametrize("grain", list(Grain))
def test_every_format_read_back_is_the_warehouses_rows(stored, tmp_path, table, grain):
    with stored.warehouse.read() as db:
        at = "window_start" if grain is Grain.hour else "date_trunc('day', window_start)"
        sums = ", ".join(f"sum({c.name}) AS {c.name}" for c in table.values)
        by = ", ".join(c.name for c in table.identity[1:])
        expected = db.sql(f"SELECT {at} AS window_start, {by}, {sums} FROM {table.name}_latest WHERE advertiser_id = 'adv-1' "
                          f"GROUP BY ALL").to_arrow_table().to_pylist()
    one = request(table, grain=grain, small_cells=0)
    for format_ in Format:
        made(tmp_path / "out", replace(one, format=format_), of=stored.out)
    source = local(stored.out)
    rows = shaped(source, one, source.moment(month(D))).table
    names = [c.name for c in (*table.identity, *table.values)]
    key = lambda row: [str(v) for v in row]  # noqa: E731
    assert sorted([[r[n] for n in names] for r in rows.to_pylist()], key=key) == sorted([[r[n] for n in names] for r in expected], key=key)
    base = tmp_path / "out" / one.stem
    assert pq.read_table(f"{base}.parquet").equals(rows)
    assert of_csv(Path(f"{base}.csv")) == plain(rows)
    naive = lambda t: t.replace(tzinfo=None)  # noqa: E731
    for read, stored_row in zip(of_xlsx(Path(f"{base}.xlsx")), plain(rows, naive), strict=True):
        for cell, value in zip(read, stored_row, strict=True):
            if isinstance(value, datetime):
                assert abs((cell - value).total_seconds()) < 0.001
            elif isinstance(value, int | Decimal) and isinstance(cell, str):
                assert Decimal(cell) == value and len(cell) > 15  # more digits than a spreadsheet keeps
            elif isinstance(value, Decimal):
                assert cell == pytest.approx(float(value), rel=1e-15)
            else:
                assert cell == value and type(cell) is type(value)


def test_csv_is_read_by_pandas_without_being_told_how(stored, tmp_path):
    made(tmp_path, request(), of=stored.out)
    frame = pandas.read_csv(tmp_path / request().name, parse_dates=["window_start"])
    assert str(frame["window_start"].dtype).startswith("datetime64") and frame["impressions"].dtype == "int64"
    assert frame.columns[0] == "window_start"


@given(st.text(alphabet=st.sampled_from(list("'=+-@;,|\t\r\n a1＝")), max_size=12))
def test_the_guard_can_be_taken_away_and_leaves_nothing_that_is_evaluated(text):
    kept = formats.guarded(text)
    assert formats.unguarded(kept) == text
    for separator in ";,|\t\r\n":
        assert not any(cell[:1] in set("=+-@＝＋－＠") and cell for cell in kept.split(separator))


def test_a_text_that_a_cell_cannot_hold_is_refused(stored, tmp_path):
    stored.add(delivery=[delivered(D, campaign_id="x" * 40_000)])
    with pytest.raises(Failure, match="--format xlsx: a text of 40,000 characters"):
        made(tmp_path / "out", request(format=Format.xlsx), of=stored.out)
    assert not list((tmp_path / "out").rglob("*.xlsx*"))


def test_more_rows_than_a_sheet_has_are_refused(tmp_path):
    rows = pa.table({"n": pa.array([1]).take(pa.array([0] * formats.SHEET_ROWS))})
    with pytest.raises(Failure, match="1,048,576 rows are more than a sheet's 1,048,575; take csv or parquet"):
        formats.write(tmp_path / "x", Format.xlsx, rows, {})


@pytest.mark.parametrize("format_", list(Format))
def test_the_same_data_and_flags_are_the_same_bytes(stored, tmp_path, format_):
    files = []
    for out in ("one", "two"):
        made(tmp_path / out, request(format=format_), request(ATTRIBUTION, format=format_), of=stored.out)
        files.append({p.name: p.read_bytes() for p in sorted((tmp_path / out).rglob("*")) if p.is_file()})
    assert files[0] == files[1] and len(files[0]) == 4


def test_names_are_safe_and_of_no_two_ids_the_same():
    ids = ["adv-1", "Adv-1", "ADV-1", "..", ".", "a/b", "a\\b", "a b", "a_b", "con", "nul.txt", "a" * 500, "a" * 501, "~", "ü", "u", "a.", "a", "", "%2e", "*",
           "\ud800"]
    names = [safe(i) for i in ids]
    assert len({n.lower() for n in names}) == len(ids)
    assert all(len(n) <= 80 and n not in (".", "..") and not set(n) & set('/\\:*?"<>|% ') and not n.endswith(".") for n in names)
    assert safe("adv-1") == "adv-1"


# -- what is told -----------------------------------------------------------------------------------------------------

def test_the_manifest_tells_what_the_file_holds(stored, tmp_path):
    made(tmp_path, request(), of=stored.out)
    told = read_manifest(tmp_path, request().name)
    rows = of_csv(tmp_path / request().name)
    assert told["rows"] == told["files"]["rows"]["rows"] == len(rows)
    at = columns(DELIVERY).names
    assert told["column_totals"] == {c.name: sum(r[at.index(c.name)] for r in rows) for c in DELIVERY.values}
    assert told["status"] == {"final": len(rows) - 1, "provisional": 1, "restated": 0}
    assert (told["advertiser"], told["from"], told["to"], told["grain"]) == ("adv-1", "2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z", "hour")
    assert told["complete_until"] == "2026-03-03T00:00:00Z" and told["as_of"] == "2026-04-11T00:00:00.123456Z"
    assert told["as_of_revision"] == (1 << 32) + 1 and told["rule_versions"] == ["rules"] and told["created_at"] == "2026-05-01T00:00:00Z"
    assert whole(destination.of(str(tmp_path)), told)
    (tmp_path / request().name).write_text("other")
    assert not whole(destination.of(str(tmp_path)), told)


def test_withheld_totals_close_the_sums(tmp_path):
    cells = [("a", 30), ("b", 12), ("c", 3), ("d", 2), (None, 40)]
    stored = Made(tmp_path / "run", whole_days(D + DAY), [earned(D + n * HOUR, x, c) for n, (c, x) in enumerate(cells)])
    for grain in Grain:
        one = request(ATTRIBUTION, grain=grain)
        made(tmp_path / "out", one, of=stored.out)
        told = read_manifest(tmp_path / "out", one.name)
        assert told["column_totals"] == {"conversions": "87", "value_micros": 87_000_000}
        rows = {(r[3], r[-1]): r[11] for r in of_csv(tmp_path / "out" / one.name)}
        assert {n for (_, mark), n in rows.items() if mark and "other campaigns" in mark} == {17}
        assert sorted(rows.values()) == [17, 30, 40]
    assert told["withheld"]["below_conversions"] == 10 and told["withheld"]["told_until"] == told["to"]
    assert told["withheld"]["told_apart"] == [{"model": "last_touch", "currency": "EUR", "rows": 2, "conversions": "70", "value_micros": 70_000_000}]
    assert told["withheld"]["told_together"] == [{"model": "last_touch", "currency": "EUR", "rows": 1, "conversions": "17", "value_micros": 17_000_000}]


def test_an_hour_that_is_open_is_provisional_and_a_day_with_it_too(tmp_path):
    rows = [delivered(D), restated(delivered(D + HOUR, n=2), 3), delivered(D + 2 * HOUR, status="provisional", n=4)]
    stored = Made(tmp_path / "run", rows)
    def statuses(**how):
        one = request(**how)
        made(tmp_path / "out", one, of=stored.out)
        return [(r[10 + 12], r[23], r[12 - 1]) for r in of_csv(tmp_path / "out" / one.name)]
    assert statuses() == [("final", None, 1), ("restated", "late", 2), ("provisional", None, 4)]
    assert statuses(grain=Grain.day) == [("provisional", "late", 7)]
    told = read_manifest(tmp_path / "out", request().name)
    assert told["complete_until"] == "2026-03-02T01:00:00Z"


def test_rows_of_probes_are_in_no_export(stored, tmp_path):
    done = said("--all", "--warehouse", stored.out, "--from", "2026-03-02", "--to", "2026-03-03", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["adv-1", "probe"]
    done = said("--advertiser", "test:adv-1", "--warehouse", stored.out, "--from", "2026-03-02", "--to", "2026-03-03", "--out", tmp_path / "no")
    assert (done.returncode, done.stderr) == (2, "measurement: --advertiser test:adv-1: rows of probes are no customer's figures\n")


# -- since ------------------------------------------------------------------------------------------------------------

def test_what_changed_since_is_told_with_old_new_and_reason(tmp_path):
    first = [delivered(D, n=5), delivered(D, n=3, campaign_id="c2"), delivered(D + HOUR, n=7), delivered(D + 2 * HOUR, status="provisional")]
    stored = Made(tmp_path / "run", [*first, *whole_days(D + DAY)])
    made(tmp_path / "out", request(), of=stored.out)
    zero = {c.name: 0 for c in DELIVERY.values}
    stored.add(delivery=[restated(first[0], 2, gross_impressions=6, impressions=6), restated(first[0], 3, gross_impressions=8, impressions=6),
                         restated(first[1], 2, restated_because="erasure", **zero), delivered(D + 2 * HOUR, revision=(1 << 32) + 9, published_at=CLOSED + HOUR),
                         restated(delivered(D + 3 * HOUR, n=4), 4)])
    where = str(tmp_path / "out" / f"{request().name}.manifest.json")
    made(tmp_path / "new", request(), of=stored.out, earlier=[("delivery", command.earlier(where))])
    [file] = (tmp_path / "new").rglob("*changes*")
    assert file.name == "delivery-2026-03-02-2026-03-03-hour.changes-since-2026-04-11-000000.csv"
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = list(csv.DictReader(opened))
    short = ["window_start", "campaign_id", "change", "old_status", "status", "restated_because", "old_gross_impressions", "new_gross_impressions",
             "difference_gross_impressions", "difference_impressions"]
    assert [[r[c] for c in short] for r in rows] == [
        ["2026-03-02T00:00:00Z", "c1", "changed", "final", "restated", "late", "5", "8", "3", "1"],
        ["2026-03-02T00:00:00Z", "c2", "gone", "final", "restated", "erasure", "3", "0", "-3", "-3"],
        ["2026-03-02T03:00:00Z", "c1", "new", "", "restated", "late", "0", "4", "4", "4"]]
    told = read_manifest(tmp_path / "new", request().name)
    assert told["since"]["as_of"] == "2026-04-11T00:00:00Z" and told["files"]["changes"]["rows"] == 3
    # Old and difference make the new total.
    assert read_manifest(tmp_path / "out", request().name)["column_totals"]["gross_impressions"] + 3 - 3 + 4 == told["column_totals"]["gross_impressions"]


def test_changes_of_few_conversions_are_not_told_and_of_many_are(tmp_path):
    rows = [earned(D, 30), earned(D, 12, "c2"), earned(D, 20, None)]
    stored, one = Made(tmp_path / "run", whole_days(D + DAY), rows), request(ATTRIBUTION)
    made(tmp_path / "out", one, of=stored.out)
    where = str(tmp_path / "out" / f"{one.name}.manifest.json")
    def changes(since: str, out: str):
        made(tmp_path / out, one, of=stored.out, earlier=[("attribution", command.earlier(since))])
        [file] = (tmp_path / out).rglob("*changes*")
        with file.open(encoding="utf-8-sig", newline="") as opened:
            return [[r[c] for c in ("campaign_id", "change", "old_conversions", "new_conversions", "difference_conversions", "restated_because")]
                    for r in csv.DictReader(opened)]
    before = (tmp_path / "out" / one.name).read_bytes()
    stored.add(attribution=[restated(rows[0], 1, conversions=Decimal(31))])
    assert changes(where, "few") == [] and (tmp_path / "few" / one.name).read_bytes() == before
    stored.add(attribution=[restated(rows[0], 2, conversions=Decimal(43), restated_because="order"), restated(rows[1], 2, conversions=Decimal(2))])
    assert changes(where, "many") == [["c1", "changed", "30", "43", "13", "late, order"], ["c2", "changed", "12", "", "", "late"]]


def test_a_manifest_that_does_not_fit_is_refused_in_a_line(stored, tmp_path):
    made(tmp_path, request(), request(ATTRIBUTION), of=stored.out)
    where = tmp_path / f"{request().name}.manifest.json"
    told, common = where.read_text(), ["--warehouse", stored.out, "--out", tmp_path / "new"]
    for flags, words in [
        (["--advertiser", "probe", "--from", "2026-03-02", "--to", "2026-03-03"], "is of advertiser adv-1 and --advertiser asks for probe"),
        (["--advertiser", "adv-1", "--from", "2026-03-02", "--to", "2026-03-04"], "is of to 2026-03-03T00:00:00Z and --to asks for 2026-03-04T00:00:00Z"),
        (["--advertiser", "adv-1", "--from", "2026-03-02", "--to", "2026-03-03", "--grain", "day"], "is of grain hour and --grain asks for day"),
        (["--advertiser", "adv-1", "--from", "2026-03-02", "--to", "2026-03-03", "--table", "attribution"], "is of delivery, which --table leaves out"),
    ]:
        done = said(*flags, *common, "--since", where)
        assert (done.returncode, done.stderr) == (2, f"measurement: --since {where}: {words}\n")
    for wrong, words in [("{}", "not the manifest of an export"), ("[", "not the manifest of an export"), (None, "there is no such file"),
                         (told.replace('"manifest_version": 1', '"manifest_version": 2'), "manifest_version 2 and not 1")]:
        where.unlink() if wrong is None else where.write_text(wrong)
        with pytest.raises(Failure, match=words):
            command.earlier(str(where))
    attributed = command.earlier(str(tmp_path / f"{request(ATTRIBUTION).name}.manifest.json"))
    with pytest.raises(Failure, match="is of small_cells 10 and --small-cells asks for 5"):
        made(tmp_path / "new", request(ATTRIBUTION, small_cells=5), of=stored.out, earlier=[("attribution", attributed)])
    where.write_text(told.replace('"impressions": ', '"impressions": 1'))
    with pytest.raises(Failure, match="rows of that time were written or deleted later; compare the files themselves"):
        made(tmp_path / "new", request(), of=stored.out, earlier=[("delivery", command.earlier(str(where)))])


# -- faults -----------------------------------------------------------------------------------------------------------

class Dying:
    """A destination whose n-th change kills."""

    def __init__(self, to, last: int):
        self._to, self._left = to, last

    def _one(self):
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1

    def put(self, name, file):
        self._one()
        self._to.put(name, file)

    def remove(self, name):
        self._one()
        self._to.remove(name)

    def get(self, name):
        return self._to.get(name)

    def sha256(self, name):
        return self._to.sha256(name)


@pytest.mark.parametrize("place", ["directory", "memory", "file"])
def test_cut_off_anywhere_a_manifest_that_is_there_is_of_files_that_are_whole(tmp_path, place):
    out = {"directory": str(tmp_path / "out"), "file": f"file://{tmp_path}/out", "memory": f"memory://{tmp_path.name}"}[place]
    to, file = destination.of(out), tmp_path / "rows"
    for n, last in enumerate(range(5)):
        file.write_text(f"rows {n}")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        files = {"a/rows.csv": file, "a/changes.csv": file}
        told = {"files": {"rows": {"name": "a/rows.csv", "sha256": digest}, "changes": {"name": "a/changes.csv", "sha256": digest}}}
        try:
            put_export(Dying(to, last), files, told)
        except KeyboardInterrupt:
            pass
        kept = to.get("a/rows.csv.manifest.json")
        assert kept is None or whole(to, json.loads(kept))
        assert (kept is not None) == (last == 4)


def test_a_failing_disk_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    to, file = destination.of(str(tmp_path / "out")), tmp_path / "rows"
    file.write_text("old")
    to.put("a/rows.csv", file)
    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(destination.os, "fsync", full)
    file.write_text("new")
    with pytest.raises(Failure, match=r"--out .*: No space left on device"):
        to.put("a/rows.csv", file)
    assert [p.name for p in (tmp_path / "out" / "a").iterdir()] == ["rows.csv"] and to.get("a/rows.csv") == b"old"


def test_an_export_of_all_goes_on_where_it_was_cut_off_as_of_the_same_time(tmp_path, monkeypatch):
    stored = Made(tmp_path / "run", [delivered(D, f"adv-{n}") for n in range(4)])
    puts, put = [], destination._Directory.put
    def dying(self, name, file):
        if len(puts) == 7:  # the note, and three exports with their manifests
            raise KeyboardInterrupt
        puts.append(name)
        put(self, name, file)
    def run(say=lambda _: None, now=NOW):
        return command.export_all(local(stored.out), str(tmp_path / "out"), [request(advertiser="")], lambda: now, say)
    monkeypatch.setattr(destination._Directory, "put", dying)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.undo()
    stored.add(delivery=[restated(delivered(D, "adv-0", n=9), 1)])
    lines = []
    assert [w.fresh for w in run(lines.append)] == [False, False, False, True]
    assert lines[0] == "going on with what was begun as of 2026-04-11T00:00:00Z"
    assert {read_manifest(tmp_path / "out", request(advertiser=f"adv-{n}").name)["as_of"] for n in range(4)} == {"2026-04-11T00:00:00Z"}
    # Ended, it begins anew with what there is now; done, it is done.
    assert [w.fresh for w in run()] == [True] * 4
    assert [w.fresh for w in run()] == [False] * 4
    assert read_manifest(tmp_path / "out", request(advertiser="adv-0").name)["status"]["restated"] == 1


def test_killed_it_leaves_whole_exports_and_goes_on(tmp_path):
    stored, out = Made(tmp_path / "run", [delivered(D + n % 24 * HOUR, f"adv-{n % 40}", placement_id=f"p{n}") for n in range(4000)]), tmp_path / "out"
    flags = ["--all", "--warehouse", stored.out, "--from", "2026-03-02", "--to", "2026-03-03", "--out", out, "--format", "xlsx", "--table", "delivery"]
    process = subprocess.Popen([sys.executable, "-m", "measurement.cli", "export", *map(str, flags)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() and process.stdout.readline()  # two are written, and the next one is begun
    process.kill()
    process.wait()
    process.stdout.close()
    left = {p: json.loads(p.read_bytes()) for p in out.rglob("*.manifest.json")}
    assert 2 <= len(left) < 40 and all(whole(destination.of(str(out)), told) for told in left.values())
    done = said(*flags)
    assert done.returncode == 0 and done.stdout.count("is there already") == len(left)
    assert len(list(out.rglob("*.manifest.json"))) == 40 and not list(out.glob(".unfinished*"))
    assert all(json.loads(p.read_bytes()) == told for p, told in left.items())


def test_an_export_of_all_says_that_there_is_nobody(stored, tmp_path):
    done = said("--all", "--from", "2025-01-01", "--to", "2025-01-02", "--warehouse", stored.out, "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "measurement: no advertiser has rows from 2025-01-01T00:00:00Z to 2025-01-02T00:00:00Z: nothing was written\n"


def test_one_advertiser_that_fails_does_not_keep_the_others(tmp_path):
    stored = Made(tmp_path / "run", [delivered(D, "a"), delivered(D, "b", campaign_id="x" * 40_000), delivered(D, "c")])
    with pytest.raises(Failure, match="1 of 3 exports failed; delivery of b: --format xlsx"):
        command.export_all(local(stored.out), str(tmp_path / "out"), [request(advertiser="", format=Format.xlsx)], lambda: NOW, lambda _: None)
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == ["a", "c"]


def test_to_an_object_store(stored, tmp_path):
    made(f"memory://{tmp_path.name}", request(), of=stored.out)
    made(tmp_path, request(), of=stored.out)
    with fsspec.open(f"memory://{tmp_path.name}/{request().name}") as file:
        assert file.read() == (tmp_path / request().name).read_bytes()
    where, told = command.earlier(f"memory://{tmp_path.name}/{request().name}.manifest.json")
    assert told["rows"] == read_manifest(tmp_path, request().name)["rows"]


# -- wrong use --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("flags, line", [
    (["--from", "2026-03-03", "--to", "2026-03-02"], "--from 2026-03-03T00:00:00Z --to 2026-03-02T00:00:00Z: the first must be before the second"),
    (["--from", "2026-03-02", "--to", "2026-03-02"], "--from 2026-03-02T00:00:00Z --to 2026-03-02T00:00:00Z: the first must be before the second"),
    (["--from", "2026-03-02T00:30:00Z", "--to", "2026-03-03"], "--from 2026-03-02T00:30:00Z: not a whole hour, which is the finest there is"),
    (["--from", "2026-03-02T01Z", "--to", "2026-03-03", "--grain", "day"], "--from 2026-03-02T01:00:00Z: --grain day takes whole UTC days; --grain hour takes hours"),
    (["--from", "2026-03-02"], "--from and --to are needed, or --yesterday"),
    (["--from", "2026-03-02", "--to", "2026-03-03", "--yesterday"], "--yesterday: is a range by itself, without --from and --to"),
    (["--from", "2026-03-02", "--to", "2026-03-03", "--table", "ledger"], "--table ledger: not one of delivery, attribution"),
    (["--from", "2026-03-02", "--to", "2026-03-03", "--all"], "--advertiser A or --all is needed, and not both"),
])
def test_wrong_use_is_one_line_and_exit_2(tmp_path, flags, line):
    done = said("--advertiser", "a", "--warehouse", tmp_path, "--out", tmp_path, *flags)
    assert (done.returncode, done.stderr) == (2, f"measurement: {line}\n")


def test_an_unknown_advertiser_is_refused_and_an_empty_day_is_an_export_without_rows(stored, tmp_path):
    common = ["--warehouse", stored.out, "--out", tmp_path / "out", "--from", "2026-03-05", "--to", "2026-03-06"]
    done = said("--advertiser", "o'nobody\\", *common)
    assert (done.returncode, done.stderr) == (2, "measurement: --advertiser o'nobody\\: no row of it was ever published here\n")
    done = said("--advertiser", "adv-1", *common)
    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == "measurement: delivery: no rows"
    [file] = (tmp_path / "out").rglob("delivery*.csv")
    assert file.read_bytes().startswith(b"\xef\xbb\xbf\"window_start\",\"advertiser_id\"") and len(of_csv(file)) == 0
    assert read_manifest(tmp_path / "out", f"adv-1/{file.name}")["column_totals"]["impressions"] == 0


def test_a_place_that_cannot_be_written_or_read_is_one_line(stored, tmp_path):
    (tmp_path / "file").write_text("")
    flags = ["--advertiser", "adv-1", "--from", "2026-03-02", "--to", "2026-03-03"]
    done = said(*flags, "--warehouse", stored.out, "--out", tmp_path / "file")
    assert done.returncode == 2 and done.stderr.startswith(f"measurement: --out {tmp_path}/file: ") and done.stderr.count("\n") == 1
    done = said(*flags, "--warehouse", tmp_path / "none", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (
        2, f"measurement: --warehouse {tmp_path}/none: no warehouse.duckdb there; `measurement run` makes one\n")
    done = said(*flags, "--warehouse", stored.out, "--out", "nowhere://x")
    assert done.returncode == 2 and done.stderr.startswith("measurement: --out nowhere://x: ") and done.stderr.count("\n") == 1
