"""`measurement export` from BigQuery's emulator writes what it writes from the local warehouse."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from cloud import Cloud
from exported import D, DAY, HOUR, Made, delivered, earned, restated, whole_days

from measurement.io.bigquery import Appender
from measurement.io.bigquery_admin import provision
from measurement.io.publication import schema
from measurement.model.tables import ATTRIBUTION, DELIVERY, TABLES

ODD = "o'neil \\ \"and\" sons"
RANGE = ["--from", "2026-03-02", "--to", "2026-03-03"]


@pytest.fixture(scope="module")
def both(bigquery, tmp_path_factory) -> tuple[Cloud, Path]:
    """The same rows in the emulator and in a local warehouse."""
    first = delivered(D, ODD, 5, spend_micros=2**60, creative_id="=1+1")
    credits = [earned(D + n * HOUR, x, c, ODD, value_micros=7) for n, (c, x) in enumerate([("a", "30.333333333"), ("b", 12), ("c", 3), (None, 40)])]
    rows = {"delivery": [first, restated(first, 2, impressions=4), delivered(D, "test:probe"), *whole_days(D + DAY + HOUR)],
            "attribution": [*credits, restated(credits[0], 3, conversions=60), restated(credits[1], 3, conversions=13)]}
    scratch = tmp_path_factory.mktemp("export")
    made = Made(scratch / "run", rows["delivery"], rows["attribution"])
    nowhere = "127.0.0.1:1"  # nothing of an export asks these
    cloud = Cloud(replace(bigquery, pubsub=nowhere, bigtable=nowhere), "exported", scratch)
    provision(bigquery, "demo", "exported", [DELIVERY, ATTRIBUTION])
    appender = Appender(bigquery, cloud.dataset)
    for name, some in rows.items():
        appender.append(name, pa.Table.from_pylist(some, schema(TABLES[name])))
    appender.close()
    return cloud, made.out


@pytest.mark.parametrize("grain", ["hour", "day"])
def test_files_are_the_same_bytes_as_the_local_ones(both, tmp_path, grain):
    cloud, run = both
    common = ["export", "--advertiser", ODD, *RANGE, "--grain", grain, "--format", "csv"]
    for out, place in (("cloud", cloud.flags), ("local", ["--warehouse", run])):
        done = cloud.command(*common, *place, "--out", tmp_path / out)
        assert done.returncode == 0, done.stderr
    files = {out: {p.name: p.read_bytes() for p in (tmp_path / out).rglob("*.csv")} for out in ("cloud", "local")}
    assert files["cloud"] == files["local"] and len(files["cloud"]) == 2
    told = [{k: v for k, v in json.loads(p.read_bytes()).items() if k not in ("created_at", "settled")}
            for out in ("cloud", "local") for p in sorted((tmp_path / out).rglob("*.manifest.json"))]
    assert told[:2] == told[2:] and told[0]["withheld"]["rows"] == 1


def test_all_advertisers_and_nobody_known(both, tmp_path):
    cloud, _ = both
    done = cloud.command("export", "--all", *RANGE, *cloud.flags, "--out", tmp_path, "--format", "parquet")
    assert done.returncode == 0, done.stderr
    assert len([p for p in tmp_path.iterdir() if p.is_dir()]) == 2
    done = cloud.command("export", "--advertiser", "nobody", *RANGE, *cloud.flags, "--out", tmp_path)
    assert (done.returncode, done.stderr) == (2, "measurement: --advertiser nobody: no row of it was ever published here\n")


def test_a_dataset_that_is_not_named_or_not_there_is_one_line(both, tmp_path):
    cloud, _ = both
    common = ["export", "--advertiser", "a", *RANGE, "--profile", "emulators", "--out", tmp_path]
    done = cloud.command(*common)
    assert (done.returncode, done.stderr) == (2, "measurement: --bigquery is needed with this profile: P.DATASET\n")
    done = cloud.command(*common, "--bigquery", "demo.nowhere")
    assert done.returncode == 2 and "dataset demo.nowhere is not there" in done.stderr and done.stderr.count("\n") == 1
