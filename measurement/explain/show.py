"""An explanation for a person: tables on a terminal, plain lines elsewhere."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from measurement.explain import words
from measurement.explain.explanation import Explanation
from measurement.explain.said import PERSONAL
from measurement.explain.steps import NOT_REACHED, NOTED, PASSED, SKIPPED, STOPPED
from measurement.explain.story import Story
from measurement.explain.tables import Row, second
from measurement.explain.words import count, name
from measurement.monitors.ledger import micros
from measurement.paths.texts import amount, time

_GOOD, _BAD = ("✓", "green"), ("✗", "bold red")
_MARKS = {PASSED: _GOOD, STOPPED: _BAD, NOTED: ("!", "yellow"), SKIPPED: ("–", "dim")}
_STYLES = {"counted": "bold green", "invalid_traffic": "bold yellow", "duplicate": "bold yellow", None: "bold yellow"}
_ROWS = 20  # of credits, and of a row's last revisions


def show(it: Explanation) -> None:
    _Show().all(it)


class _Show:
    def __init__(self):
        self._console = Console(highlight=False)
        self._terminal = self._console.is_terminal

    def _say(self, text: str = "", style: str = "") -> None:
        if self._terminal:
            self._console.print(Text(text, style))
        else:
            print(text)

    def _head(self, text: str) -> None:
        self._say()
        self._say(text, "bold")

    def all(self, it: Explanation) -> None:
        found = it.found
        n = len(found.copies) + found.more
        self._say(f"event {name(it.event_id)}: " + (f"{n:,} cop{'ies' if n > 1 else 'y'} received" if n else "not found"),
                  "bold" if n else "bold red")
        self._say(f"searched: {count(found.events, 'event')} of {count(len(found.sources), 'source')} ({_some(found.sources)}), "
                  f"the inputs of {it.where}")
        if found.unread:
            holding = f"these hold the id's bytes: {_some(found.suspects)}" if found.suspects else "none holds the id's bytes"
            self._say(f"{count(found.unread, 'piece')} could not be decoded, which leaves no id to be found by; {holding}")
        if found.nameless:
            self._say(f"{count(found.nameless, 'event')} came without a readable event_id")
        for note in it.notes:
            self._say(f"note: {note}", "yellow")
        self._rules(it)
        for i, story in enumerate(it.stories, 1):
            self._story(story, i, n)
        if found.more:
            self._say(f"{found.more:,} more copies are not explained")
        wrong = [(i, check) for i, story in enumerate(it.stories, 1) for check in story.checks if not check.agrees]
        if it.stories:
            self._say()
            self._say("everything agrees" if not wrong else "does not agree: " + ", ".join(
                f"copy {i} with {check.table}" for i, check in wrong), "bold red" if wrong else "bold green")

    def _rules(self, it: Explanation) -> None:
        ours, theirs = it.other_rules
        if not ours and not theirs:
            return
        self._say("note: derived by other rules than the last run's; give its policy with --policy to compare like with like",
                  "yellow")
        for whose, parts in ("only here", ours), ("only in the run", theirs):
            if parts:
                self._say(f"  {whose}: {' '.join(map(name, parts))}", "yellow")

    def _story(self, story: Story, i: int, n: int) -> None:
        copy, outcome = story.copy, story.outcome or "waiting"
        why = f" ({story.reason})" if story.reason else ""
        self._say()
        self._say(f"copy {i} of {n}: {outcome}{why}", _STYLES.get(story.outcome, "bold red"))
        schema = f", schema {copy.schema_id}" if copy.schema_id else ""
        rows = [("received", f"{time(copy.received)}, {name(copy.source)} at {copy.position}, {copy.encoding}{schema}"),
                ("says", self._said(story)), ("personal", _personal(story))]
        self._pairs(rows)
        self._head("rules, in their order")
        self._steps(story)
        self._effects(story)
        self._head("the tables")
        self._marked([(*(_GOOD if check.agrees else _BAD), "agrees" if check.agrees else "DOES NOT AGREE", check.table, check.says)
                      for check in story.checks])
        self._history(story)

    def _said(self, story: Story) -> str:
        said = [f"{field} {words.value(field, of)}" for field, of in story.said.shown.items() if field != "event_id"]
        return ", ".join(said + [f"{field} of the wrong type" for field in story.said.wrong])

    def _pairs(self, rows: list[tuple[str, str]]) -> None:
        if not self._terminal:
            for head, text in rows:
                print(f"{head}: {text}")
            return
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for head, text in rows:
            grid.add_row(Text(head, "dim"), Text(text))
        self._console.print(grid)

    def _marked(self, rows: list[tuple[str, str, str, str, str]]) -> None:
        """Rows of (mark, style, the mark in words, head, text)."""
        if not self._terminal:
            for _, _, word, head, text in rows:
                print(f"{head}: {word}{': ' + text if text else ''}")
            return
        grid = Table.grid(padding=(0, 2))
        for _ in range(2):
            grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for mark, style, _, head, text in rows:
            quiet = "dim" if style == "dim" else ""
            grid.add_row(Text(mark, style), Text(head, quiet), Text(text, quiet))
        self._console.print(grid)

    def _steps(self, story: Story) -> None:
        reached = [step for step in story.steps if step.result != NOT_REACHED]
        self._marked([(*_MARKS[step.result], step.result, step.rule, step.says) for step in reached])
        if len(reached) < len(story.steps):
            self._say("no later rule was asked", "dim")

    def _effects(self, story: Story) -> None:
        """What follows from the outcome."""
        says = []
        if story.outcome in ("counted", "invalid_traffic") and story.fate.head is not None:
            named = ", ".join(f"{of} {name(text)}" for of, text in story.dimensions.items() if text is not None)
            says.append(("counted under", f"{time(story.hour)}, {named}"))
            if story.outcome == "invalid_traffic":
                adds = words.adds(story.fate.adds) if story.fate.adds else "adds nothing to delivery"
                says.append(("left out of net", f"invalid traffic, {story.reason}: {adds}, 1 to invalid_traffic"))
            elif story.said.get("event_type") != "conversion":
                says.append(("adds", words.adds(story.fate.adds).removeprefix("adds ")))
        if story.outcome == "orphan":
            says += [("its impression", f"was refused: {row['reason']}, {name(row['detail'])} ({name(row['reject_id'])})")
                     for row in story.refused[:_ROWS]]
        says += _touch(story)
        if says:
            self._head("what follows")
            self._pairs(says)
        rows = [row for row in story.credits if row["credit"] or row["value_micros"]]  # the others have lost theirs
        if rows and not story.shadowed:
            self._credits(story, rows)

    def _credits(self, story: Story, rows: list[Row]) -> None:
        own = story.said.get("event_type") == "conversion"
        lines = []
        for row in rows[:_ROWS]:
            other = f"{row['touch_type']} {name(row['touch_id'])}" if row["touch_id"] is not None else "no touch"
            at = row["touch_time"] if own else row["conversion_time"]
            what = other if own else f"conversion {name(row['conversion_id'])}"
            lines.append((row["model"], what, "" if at is None else time(micros(at)),
                          f"{row['credit'].normalize():f}", amount(row["value_micros"]), name(row["currency"] or "")))
        self._head("credit of each touch, by model" if own else "conversions that credit it")
        self._table(("model", "touch" if own else "conversion", "at", "credit", "value", "currency"), lines)
        if len(rows) > _ROWS:
            self._say(f"… and {len(rows) - _ROWS:,} more rows")

    def _history(self, story: Story) -> None:
        if not story.history:
            return
        self._head("its delivery row, revision by revision" + (f", the last {_ROWS}" if len(story.history) > _ROWS else ""))
        lines = []
        for it in story.history[-_ROWS:]:
            changed = ", ".join(f"{of} {before:,} → {after:,}" for of, (before, after) in it.changed.items()) or "nothing"
            lines.append((it.text, it.row["status"], it.row["restated_because"] or "", second(it.row["published_at"]), changed))
        self._table(("revision", "status", "because", "published", "changed"), lines)

    def _table(self, heads: tuple[str, ...], lines: list[tuple[str, ...]]) -> None:
        if not self._terminal:
            for line in (heads, *lines):
                print("\t".join(line))
            return
        table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0))
        for head in heads:
            table.add_column(head, overflow="fold")
        for line in lines:
            table.add_row(*map(Text, line))
        self._console.print(table)


def _touch(story: Story) -> list[tuple[str, str]]:
    """What it is to attribution."""
    kind = story.said.get("event_type")
    if story.fate is None or kind not in ("impression", "click", "conversion") or story.outcome not in ("counted", "invalid_traffic"):
        return []
    if not story.has_user:
        dropped = "its user was dropped for want of consent" if story.said.has("user_id") else "it has no user_id"
        return [("attribution", f"{dropped}: " + ("no touch can be credited" if kind == "conversion" else "never a touch"))]
    if story.outcome != "counted":
        return [("attribution", "invalid traffic is " + ("not credited" if kind == "conversion" else "no touch"))]
    if kind == "conversion":
        return []
    return [("attribution", "a touch of its user" + ("" if story.credits else "; no conversion credits it"))]


def _personal(story: Story) -> str:
    there = [field for field in PERSONAL if story.said.has(field)]
    return f"{', '.join(there)} (not shown)" if there else "none"


def _some(names: list[str]) -> str:
    """A few names and how many more."""
    return ", ".join(map(name, names[:3])) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
