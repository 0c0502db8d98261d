"""`measurement query`: the cookbook's SQL over a local warehouse, and what is said of what is none."""

import csv
import io
import subprocess
import sys

import pytest
from cookbook import QUESTIONS
from serving import books, write

from measurement.failure import Failure
from measurement.local.query import query
from measurement.local.warehouse import Warehouse


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return write(tmp_path_factory.mktemp("asked") / "out", books())


def command(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "measurement.cli", "query", *map(str, arguments)], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: str(q.number))
def test_each_question_of_the_cookbook_is_taken_as_it_stands(out, question):
    assert query(Warehouse(out), question.sql).column_names == question.columns


def test_rows_are_csv_where_they_go_into_a_file(out):
    asked = command("SELECT window_start, status, conversions, value_micros, line_item_id FROM `p.ads.attribution_latest` "
                    "WHERE advertiser_id = 'a' AND model = 'linear' ORDER BY conversions DESC LIMIT 2", "--out", out)
    assert (asked.returncode, asked.stderr) == (0, "")
    assert list(csv.reader(io.StringIO(asked.stdout))) == [["window_start", "status", "conversions", "value_micros", "line_item_id"],
                                                           ["2026-03-03T16:00:00Z", "final", "1234567890.000000001", "7", ""],
                                                           ["2026-03-03T16:00:00Z", "restated", "1", "7", ""]]


@pytest.mark.parametrize("sql, said", [
    ("SELEC 1", "line 1, column 7: Invalid expression"), ("SELECT FROM WHERE", "line 1, column 17: Expected table name"),
    ("SELECT 'a", "this is no SQL"), ("", "one SELECT is asked"), ("SELECT 1; SELECT 2", "one SELECT is asked"),
    ("DELETE FROM delivery WHERE true", "one SELECT is asked"), ("SELECT * FROM ads.nothing", "Table with name nothing does not exist"),
    ("SELECT nothing FROM delivery_latest", 'column "nothing" not found'), ("SELECT * FROM read_csv('/etc/hosts')", "disabled"),
])
def test_what_is_no_question_is_told_in_one_line(out, sql, said):
    with pytest.raises(Failure) as told:
        query(Warehouse(out), sql)
    assert said in str(told.value) and "\n" not in str(told.value)


def test_wrong_use_is_told(out, tmp_path):
    for arguments, said in (((), "give the SQL, or --file"), (("SELECT 1", "--file", tmp_path / "q.sql"), "give the SQL, or --file"),
                            (("--file", tmp_path / "q.sql"), "No such file"), (("SELECT 1", "--out", tmp_path), "no warehouse")):
        asked = command(*arguments, *(() if "--out" in arguments else ("--out", out)))
        assert asked.returncode == 2 and said in asked.stderr and asked.stderr.count("\n") == 1, asked
    (tmp_path / "q.sql").write_text("SELECT count(*) AS n FROM ads.delivery_latest")
    assert command("--file", tmp_path / "q.sql", "--out", out).stdout.startswith("n\n")
