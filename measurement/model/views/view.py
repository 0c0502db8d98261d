"""What a view is, and the pieces of BigQuery's SQL that several are made of."""

from dataclasses import dataclass

from measurement.model.events import COUNTS, DIMENSIONS, TEST_ADVERTISER
from measurement.model.tables import BOOL, DELIVERY, INT64, STRING, Column


@dataclass(frozen=True)
class View:
    """``over``: the tables that it reads, also by way of other views. ``text``: its SELECT, with ``{dataset}`` for
    project.dataset, or for a DuckDB schema. A column that is not ``required`` may be NULL."""

    name: str
    description: str
    over: tuple[str, ...]
    columns: tuple[Column, ...]
    text: str

    def select(self, dataset: str) -> str:
        return self.text.format(dataset=dataset)


NO_TESTS = f"NOT starts_with(advertiser_id, '{TEST_ADVERTISER}')"
# The time before which every hour is closed, in one row; NULL if none is. Probes' hours tell too: they are there when nobody else is.
CLOSED = ("(SELECT timestamp_add(max(window_start), INTERVAL 1 HOUR) AS until FROM `{dataset}.delivery_latest` "
          "WHERE status <> 'provisional')")

# Without what is said of probes, which no view has.
OF_DELIVERY = {c.name: c for c in DELIVERY.columns} | {"advertiser_id": Column("advertiser_id", STRING, True, "Who pays.")}
DIMENSION_COLUMNS = tuple(OF_DELIVERY[d] for d in DIMENSIONS)
COUNT_COLUMNS = tuple(OF_DELIVERY[c] for c in COUNTS)

HOURS = (
    Column("hours", INT64, True, "Hourly rows that are in it."),
    Column("hours_provisional", INT64, True, "Those of them whose hour is open."),
    Column("hours_restated", INT64, True, "Those of them that changed after their hour had closed."),
    Column("status", STRING, True, "The worst of its hours: provisional if one is open, else restated if one is, else final."),
)
COMPLETE = Column("complete", BOOL, True, "Whether all hours of it are closed, those without delivery too.")


def worst(provisional: str, restated: str) -> str:
    """The status of rows of which so many are provisional and so many restated."""
    return f"CASE WHEN {provisional} > 0 THEN 'provisional' WHEN {restated} > 0 THEN 'restated' ELSE 'final' END"


def hours_of_rows() -> str:
    """The columns HOURS over hourly rows with a status."""
    provisional, restated = (f"countif(status = '{status}')" for status in ("provisional", "restated"))
    return (f"count(*) AS hours, CAST({provisional} AS INT64) AS hours_provisional, CAST({restated} AS INT64) AS hours_restated, "
            f"{worst(provisional, restated)} AS status")


def total(column: str, name: str | None = None) -> str:
    """A sum of INT64 as one; DuckDB's would have twice its bits."""
    return f"CAST(sum({column}) AS INT64) AS {name or column}"


def totals(names) -> str:
    return ", ".join(map(total, names))


def share(part: str, whole: str) -> str:
    """A share of 1 with four decimals, rounded half up, as a text: neither AVG nor SUM takes it. NULL where there is no whole."""
    ratio = f"div(20000 * ({part}) + {whole}, 2 * nullif({whole}, 0))"
    return f"CAST(div({ratio}, 10000) AS STRING) || '.' || lpad(CAST(mod({ratio}, 10000) AS STRING), 4, '0')"


def names(columns) -> str:
    return ", ".join(c.name for c in columns)
