"""`restatements`: every figure that changed after its hour had closed: from what to what, why, when.

A row a figure. Each restated revision is held against the one before it of the same row; a row that came up in a closed hour was 0.
So what an hour first closed with and its differences sum to what it is now.
"""

from measurement.model.tables import ATTRIBUTION, DELIVERY, INT64, NUMERIC, STRING, TIMESTAMP, Column, Table
from measurement.model.views.view import NO_TESTS, View, names

_TABLES = (DELIVERY, ATTRIBUTION)
_BOTH = {
    "advertiser_id": "Who pays.",
    "window_start": "The hour's start, UTC: of delivery the impression's, of attribution the conversion's.",
    "currency": "ISO 4217 code of the row's money.",
}


def _key(name: str) -> Column:
    """A column of the key of one table or of both."""
    ours = {table.name: c for table in _TABLES for c in table.key if c.name == name}
    first = next(iter(ours.values()))
    if len(ours) == len(_TABLES):
        return Column(name, first.type, first.required, _BOTH.get(name, first.description))
    return Column(name, first.type, False, f"{first.description} Of {next(iter(ours))} alone, else NULL.")


_KEYS = tuple(map(_key, dict.fromkeys(c.name for table in _TABLES for c in table.key)))


def _changes(table: Table) -> str:
    """The restated figures of one table."""
    keys, figures = names(table.key), [c.name for c in table.values]
    window = f"OVER (PARTITION BY {keys} ORDER BY revision)"
    before = ", ".join(f"lag({c}) {window} AS old_{c}" for c in (*figures, "published_at", "rule_version"))
    def of(prefix: str) -> str:
        cases = " ".join(f"WHEN '{c}' THEN coalesce(CAST({prefix}{c} AS NUMERIC(38, 9)), 0)" for c in figures)
        return f"CASE figure {cases} END"
    shown = ", ".join(c.name if c.name in keys.split(", ") else f"CAST(NULL AS STRING) AS {c.name}" for c in _KEYS)
    return f"""
SELECT '{table.name}' AS table_name, {shown}, figure, {of('old_')} AS old_value, {of('')} AS new_value,
  restated_because, published_at, revision, rule_version, old_published_at, old_rule_version
FROM (
  SELECT *, {before}
  FROM (
    SELECT * FROM `{{dataset}}.{table.name}` WHERE {NO_TESTS}
    QUALIFY row_number() OVER (PARTITION BY {keys}, revision ORDER BY published_at DESC) = 1
  ) AS revisions
) AS history CROSS JOIN ({' UNION ALL '.join(f"SELECT '{c}' AS figure" for c in figures)}) AS figures
WHERE status = 'restated'"""


RESTATEMENTS = View(
    "restatements", "Each figure of delivery and attribution that changed after its hour had closed, a row a change. What an hour first "
    "closed with and the differences sum to what it is now.",
    tuple(t.name for t in _TABLES),
    (Column("table_name", STRING, True, f"Whose figure: {' or '.join(t.name for t in _TABLES)}."), *_KEYS,
     Column("figure", STRING, True, "The figure that changed, by its column's name."),
     Column("old_value", NUMERIC, True, "The figure as it stood before; 0 where the row was not there."),
     Column("new_value", NUMERIC, True, "The figure as it was restated."),
     Column("difference", NUMERIC, True, "new_value - old_value."),
     Column("restated_because", STRING, False, "Why: late, invalid_traffic, order, rebuild, policy or erasure."),
     Column("published_at", TIMESTAMP, True, "When it was restated."),
     Column("revision", INT64, True, "The revision that restated it."),
     Column("rule_version", STRING, True, "The rules, lists and policy that it was counted by then."),
     Column("old_published_at", TIMESTAMP, False, "When the old figure was published; NULL where the row was not there."),
     Column("old_rule_version", STRING, False, "The rules that the old figure was counted by; NULL where the row was not there.")),
    f"""
SELECT table_name, {names(_KEYS)}, figure, old_value, new_value, new_value - old_value AS difference,
  restated_because, published_at, revision, rule_version, old_published_at, old_rule_version
FROM ({' UNION ALL '.join(map(_changes, _TABLES))}) AS changes
WHERE new_value <> old_value""")
