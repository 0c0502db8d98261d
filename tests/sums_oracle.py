"""Sums as a plain loop makes them of the hourly rows that the API gives."""

from collections import defaultdict
from decimal import Decimal

from serving import Asking

from measurement.model.tables import NUMERIC, Table


def hourly(api: Asking, path: str, key: str, **query) -> list[dict]:
    rows, more = [], {}
    while True:
        page = api.get(path, key, **query, **more).json
        rows += page["rows"]
        if page["next"] is None:
            return rows
        more = {"cursor": page["next"]}


def summed(table: Table, rows: list[dict], by: list[str]) -> list[dict]:
    keys = by if "currency" in by else [*by, "currency"]
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[k] for k in keys)].append(row)
    made = []
    for key, group in sorted(groups.items(), key=lambda one: [("" if v is None else "x", v or "") for v in one[0]]):
        row = dict(zip(keys, key)) | {"hourly_rows": len(group)}
        for status in ("provisional", "restated"):
            row[f"{status}_rows"] = sum(r["status"] == status for r in group)
        for c in table.values:
            row[c.name] = f"{sum(Decimal(r[c.name]) for r in group):.9f}" if c.type == NUMERIC else sum(r[c.name] for r in group)
        if "status" not in keys:
            row["status"] = "provisional" if row["provisional_rows"] else "restated" if row["restated_rows"] else "final"
        row["restated_because"] = ",".join(sorted({r["restated_because"] for r in group} - {None})) or None
        row["rule_version"] = " | ".join(sorted({r["rule_version"] for r in group}))
        made.append(row | {name: max(r[name] for r in group) for name in ("revision", "published_at")})
    return made
