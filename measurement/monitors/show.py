"""What `measurement status` shows: how the job is, and every service level, the worst first. A table on a terminal, else plain lines."""

from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from measurement.monitors.levels import Levels, Line
from measurement.monitors.sample import State
from measurement.monitors.slo import REASONS
from measurement.monitors.status import Status

_ORDER = (State.broken, State.burning, State.unknown, State.ok)
_STYLE = {State.broken: "bold white on red", State.burning: "bold yellow", State.unknown: "dim", State.ok: "green"}
_BAD = {"failed", "interrupted", "NO"}


def show(status: Status) -> None:
    console = Console(highlight=False)
    (_on_terminal if console.is_terminal else _plain)(console, status)


def _on_terminal(console: Console, status: Status) -> None:
    table = Table(expand=True)
    for name in ("level", "state", "budget gone", "since"):
        table.add_column(name, no_wrap=True)
    table.add_column("what is seen", ratio=1, overflow="fold")
    for line in _lines(status.levels):
        table.add_row(line.level, Text(line.state.value, _STYLE[line.state]), _spent(line), _time(line.since), Text(line.text))
    console.print(table)
    for line in status.levels.broken:
        console.print(Text.assemble(("first, ", "bold"), f"for {line.level}: ", (line.command, "bold"), f"   ({line.runbook})"))
        for name, whom in (("hours", line.hours), ("advertisers", line.advertisers)):
            if whom:
                console.print(Text(f"  {name}: {', '.join(whom)}"))
    for said in _warnings(status.levels):
        console.print(Text(said, "yellow"))
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(status):
        facts.add_row(Text(name, "dim"), Text(value, "bold red" if value in _BAD else ""))
    console.print(facts)


def _plain(console: Console, status: Status) -> None:
    for line in _lines(status.levels):
        told = [line.state.value, line.text]
        told += [f"{_spent(line)} of the budget gone"] * (line.spent is not None)
        told += [f"since {_time(line.since)}"] * (line.since is not None)
        told += [f"hours {', '.join(line.hours)}"] * bool(line.hours) + [f"advertisers {', '.join(line.advertisers)}"] * bool(line.advertisers)
        told += [f"first: {line.command}", line.runbook] * (line.state is State.broken)
        print(f"{line.level}: {'; '.join(told)}")
    for said in _warnings(status.levels):
        print(said)
    for name, value in _facts(status):
        print(f"{name}: {value}")


def _lines(levels: Levels) -> list[Line]:
    """The worst first, the reasons of rejection that have nothing to say as one."""
    lines = sorted(levels.lines, key=lambda line: _ORDER.index(line.state))
    for state in State.ok, State.unknown:
        same = [line for line in lines if line.level in REASONS and line.state is state]
        if len(same) > 1:
            at = lines.index(same[0])
            one = Line(f"rejected ({len(same)} reasons)", state, None, same[0].target, max((line.spent or 0 for line in same)) if same[0].spent is not None else None,
                       None, "as ever" if state is State.ok else same[0].text, (), (), same[0].command, same[0].runbook)
            lines = [line for line in lines if line not in same]
            lines.insert(at, one)
    return lines


def _warnings(levels: Levels) -> list[str]:
    said = [f"could not be read: {what}: {why}" for what, why in levels.unread.items()]
    if levels.looked is None:
        return [*said, "no monitor has looked: rates, latency and probes are judged by one (`measurement monitor`)"]
    return said if levels.watched else [*said, f"no monitor looks: the last did at {_time(levels.looked)}"]


def _facts(status: Status) -> list[tuple[str, str]]:
    balanced = {None: "not yet known", True: "yes", False: "NO"}[status.balanced]
    rows = [("generation", str(status.generation)), ("last run", status.state), ("began", _time(status.began)), ("ended", _time(status.ended)),
            ("complete until", _time(status.complete_until)), ("received", f"{status.received:,}")]
    rows += [(outcome, f"{n:,}") for outcome, n in status.outcomes.items()]
    rows += [(f"hours {name}", f"{n:,}") for name, n in sorted(status.hours.items())]
    return rows + [("conversions credited", f"{status.credited:,}"), ("of these to a touch", f"{status.touched:,}"), ("balanced", balanced)]


def _spent(line: Line) -> str:
    return "-" if line.spent is None else f"{line.spent:.0%}"


def _time(at: datetime | None) -> str:
    return "-" if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"
