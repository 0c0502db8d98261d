"""What changed in an export's rows since an earlier one, and why."""

from decimal import Decimal

import pyarrow as pa

from measurement.exports.request import Request
from measurement.exports.rows import columns, figures, key
from measurement.exports.small_cells import apart
from measurement.model.tables import Table

_TEXT = pa.string()


def schema(table: Table) -> pa.Schema:
    """The key; ``change``: new, changed, or gone (nothing is left); of each figure old, new and difference; what the row says."""
    own = columns(table)
    fields = [own.field(name) for name in key(table)] + [pa.field("change", _TEXT, False), pa.field("old_status", _TEXT)]
    fields += [pa.field(name, _TEXT) for name in ("status", "restated_because", "rule_version")]
    for name in figures(table):
        fields += [pa.field(f"{head}{name}", own.field(name).type) for head in ("old_", "new_", "difference_")]
    fields += [pa.field("old_revision", pa.int64()), *(own.field(name).with_nullable(True) for name in ("revision", "published_at"))]
    return pa.schema(fields)


def since(request: Request, old: pa.Table, new: pa.Table) -> pa.Table:
    """The rows whose figures are not what they were, in the order of their keys. Both are rows of the request, earlier and now."""
    table = request.table
    by, counted = key(table), figures(table)
    before, after = ({tuple(apart(row[name]) if name == "withheld" else row[name] for name in by): row for row in rows.to_pylist()}
                     for rows in (old, new))
    made = []
    for at in before.keys() | after.keys():
        was, now = before.get(at), after.get(at)
        olds = {name: was[name] if was else _nothing(old, name) for name in counted}
        news = {name: now[name] if now else _nothing(new, name) for name in counted}
        if olds == news:
            continue
        change = "new" if was is None else "changed" if any(v != 0 for v in news.values()) else "gone"
        row = {name: (now or was)[name] for name in by} | {"change": change}
        row |= {"old_status": was["status"] if was else None, "old_revision": was["revision"] if was else None}
        row |= {name: now[name] if now else None for name in ("status", "restated_because", "rule_version", "revision", "published_at")}
        for name in counted:
            row |= {f"old_{name}": olds[name], f"new_{name}": news[name], f"difference_{name}":
                    None if olds[name] is None or news[name] is None else news[name] - olds[name]}
        made.append(row)
    rows = pa.Table.from_pylist(made, schema(table))
    return rows.sort_by([(name, "ascending") for name in by])


def _nothing(rows: pa.Table, name: str) -> int | Decimal:
    return Decimal(0) if pa.types.is_decimal(rows.schema.field(name).type) else 0
