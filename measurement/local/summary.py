"""What a person sees of a run: progress, summary, balance. Tables on a terminal, plain lines elsewhere."""

from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from measurement.local.run import Progress
from measurement.local.warehouse import Warehouse
from measurement.model.tables import DELIVERY
from measurement.monitors.ledger import Result
from measurement.monitors.status import CREDITED

_PLAIN_SECONDS = 2.0  # between lines where there is no terminal
_SHOWN = 20  # hours of a failed check


def _console() -> Console:
    return Console(highlight=False)


class _Show:
    """Shows progress; ``last`` is the latest."""

    def __init__(self, update, say):
        self._update, self.say, self.last = update, say, Progress()

    def progress(self, progress: Progress) -> None:
        self.last = progress
        self._update(progress)


@contextmanager
def display():
    """Yields what run() reports to: a live line on a terminal, else one plain line every few seconds."""
    console = _console()
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Bar(*columns, console=console, transient=True) as bar:
            task = bar.add_task("starting the engine", total=None)
            yield _Show(lambda p: bar.update(task, description=_line(p)), bar.console.print)
    else:
        said = [0.0]

        def update(p: Progress) -> None:
            if p.seconds - said[0] >= _PLAIN_SECONDS:
                said[0] = p.seconds
                print(_line(p), flush=True)

        yield _Show(update, lambda text: print(text, flush=True))


def _line(p: Progress) -> str:
    if not p.events:
        return "starting the engine"
    rate = p.taken / p.seconds if p.seconds else 0
    lag = f"lag {p.events - p.rejected - p.taken:,} events"
    at = f"{datetime.fromtimestamp(p.watermark / 1e6, UTC):%Y-%m-%d %H:%M:%S}Z" if p.watermark and p.watermark > 0 else "-"
    read = "" if p.watermark is not None else ", all read, closing hours"
    return f"{p.events:,} events read, {rate:,.0f} events/s, watermark {at}, {lag}{read}"


def show(warehouse: Warehouse, last: Progress) -> None:
    """The summary at a run's end."""
    with warehouse.read() as db:
        received = db.execute("SELECT sum(events)::BIGINT FROM intake_latest").fetchone()[0] or 0
        outcomes = dict(db.execute("SELECT outcome, sum(events)::BIGINT FROM ledger_latest GROUP BY 1 ORDER BY 2 DESC").fetchall())
        closed, rows, restated = db.execute(
            "SELECT count(DISTINCT window_start), count(*), count(*) FILTER (status = 'restated') FROM delivery_latest "
            "WHERE status <> 'provisional'").fetchone()
        credited, touched = db.execute(CREDITED.format(conversion_credits="conversion_credits_latest")).fetchone()
    first = [("received", received)] + [(o, outcomes.pop(o, 0)) for o in ("counted", "duplicate", "invalid_traffic")]
    rejected = [(f"rejected: {o}", n) for o, n in outcomes.items() if n]
    _table("", first + rejected + [("hours closed", closed), ("delivery rows", rows), ("of these restated", restated),
                              ("conversions credited", credited), ("of these to a touch", touched)])
    took = f" in {last.seconds:,.1f} s, {last.events / last.seconds:,.0f} events/s" if last.seconds else ""
    print(f"{last.events:,} events read{took}. Tables and views: {warehouse.path}")


def _table(title: str, rows: list[tuple[str, int]]) -> None:
    console = _console()
    if not console.is_terminal:
        for name, n in rows:
            print(f"{name}: {n:,}")
        return
    table = Table(title=title or None, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, n in rows:
        table.add_row(name, f"{n:,}")
    console.print(table)


def show_reconciled(result: Result) -> None:
    """The balance, and by check the hours where it fails."""
    _table("ledger", [("received", result.received), *result.outcomes.items()])
    if result.under_way:
        print(f"a run is under way: {result.received - result.decided:,} of the events received wait or are under way")
        if result.settled is None:
            return
        print(f"hours before {_value(datetime.fromtimestamp(result.settled / 1e6, UTC))} wait for nothing")
    for line in result.unbalanced:
        print(f"does not hold: {line}")
    for check, wrong in result.failures:
        print(f"does not hold: {check.says}")
        for *key, left, right in wrong[:_SHOWN]:
            named = ", ".join(f"{name} {_value(k)}" for name, k in zip(check.key, key, strict=True))
            print(f"  {named}: {_number(left)} against {_number(right)}")
        if len(wrong) > _SHOWN:
            print(f"  … and {len(wrong) - _SHOWN:,} more")
    if result.holds and result.under_way:
        print("the ledger balances in all of them")
    elif result.holds:
        print(f"the ledger balances: {result.received:,} received, every one accounted for")


def _value(value) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return "NULL" if value is None else str(value)


def _number(n: int | Decimal) -> str:
    """A figure of a check; of a decimal the digits that say something."""
    return f"{n:,f}".rstrip("0") if isinstance(n, Decimal) else f"{n:,}"


def show_head(warehouse: Warehouse, rows: int) -> None:
    """The first delivery rows by hour and dimensions, the columns that have values."""
    names = ["window_start", "advertiser_id", "campaign_id", "creative_id", "placement_id", "format", "country", "currency", *(c.name for c in DELIVERY.values), "status"]
    with warehouse.read() as db:
        found = db.execute(f"SELECT {', '.join(names)} FROM delivery_latest ORDER BY ALL LIMIT {int(rows)}").fetchall()
    console = _console()
    if not console.is_terminal:
        print("\t".join(names))
        for row in found:
            print("\t".join(_value(v) for v in row))
        return
    shown = [i for i, name in enumerate(names) if any(row[i] not in (None, 0) for row in found)]
    table = Table()
    for i in shown:
        table.add_column(names[i].replace("_", "\n"), justify="right" if names[i] in {c.name for c in DELIVERY.values} else "left",
                         overflow="fold")
    for row in found:
        table.add_row(*(_value(row[i]).removesuffix(":00:00Z") for i in shown))
    console.print(table)
