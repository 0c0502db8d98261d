"""The command `paths`: reads facts, compares the models, shows a table, writes the page, and rows for other programs."""

import csv as csv_files
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from measurement.failure import Failure
from measurement.model.policy import Policy
from measurement.paths import report, texts
from measurement.paths.compare import Comparison, compare
from measurement.paths.facts import Facts
from measurement.paths.journeys import journeys
from measurement.rules.paths import MAX_ORDER

_KNOWN = 10  # advertisers named when one is unknown


def run(
    read_facts: Callable[[], Facts], policy: Policy, *, advertiser: str | None = None, since: int | None = None,
    until: int | None = None, order: int = 1, top: int = 20, html: Path | None = None, csv: Path | None = None,
    as_json: bool = False,
) -> int:
    """Compares the models over conversions in [since, until) µs and returns the exit code: 1 if there are none, else 0.

    Prints a table for each advertiser, or JSON; writes a page to ``html`` and all rows to ``csv``. Wrong use is found before
    anything is read, and is a Failure, as is an unknown ``advertiser`` and a file that cannot be written.
    """
    if order not in range(1, MAX_ORDER + 1):
        raise Failure(f"--order {order}: a Markov chain of order 1 to {MAX_ORDER} can be made")
    if since is not None and until is not None and since >= until:
        raise Failure(f"--from {texts.time(since)} --to {texts.time(until)}: the first must be before the second")
    for flag, path in ("--html", html), ("--csv", csv):
        if path is not None and not path.parent.is_dir():
            raise Failure(f"{flag} {path}: there is no directory {path.parent}")
        if path is not None and path.is_dir():
            raise Failure(f"{flag} {path}: is a directory; name a file in it")
    facts = read_facts()
    if advertiser is not None and advertiser not in facts.advertisers:
        raise Failure(f"--advertiser {advertiser}: has no touch and no conversion here; {_known(facts.advertisers)}")
    found = journeys(facts, policy.attribution, since, until, advertiser)
    compared = [compare(one, order) for one in found if one.conversions]
    if not compared:
        of = "" if advertiser is None else f" of {texts.one_line(advertiser)}"
        print(f"measurement: no conversions{of} in the range: {texts.span(since, until)}", file=sys.stderr)
        return 1
    left_out = len(found) - len(compared)
    if html is not None:
        # A lone surrogate cannot be written; nothing else is ever replaced.
        _write("--html", html, lambda: html.write_text(
            report.page(compared, since, until, top, left_out), encoding="utf-8", errors="replace"))
    if csv is not None:
        _write("--csv", csv, lambda: _write_csv(csv, compared))
    if as_json:
        print(json.dumps({"from": _time(since), "to": _time(until), "html": html and str(html),
                          "advertisers": [_tree(c) for c in compared]}))
    else:
        for c in compared:
            _show(c.top(top))
        if left_out:
            print(f"{left_out:,} more advertiser{'s' * (left_out > 1)} without conversions in the range")
        for path in filter(None, (html, csv)):
            print(f"written: {path}")
    return 0


def _known(advertisers: Sequence[str]) -> str:
    if not advertisers:
        return "nor has any other"
    named = sorted(map(texts.one_line, advertisers))
    return "known: " + ", ".join(named[:_KNOWN]) + (f" and {len(named) - _KNOWN:,} more" if len(named) > _KNOWN else "")


def _time(micros: int | None) -> str | None:
    return None if micros is None else texts.time(micros)


def _write(flag: str, path: Path, act) -> None:
    try:
        act()
    except OSError as error:
        raise Failure(f"{flag} {path}: {error.strerror or error}") from error


# -- for other programs -----------------------------------------------------------------------------------------------

def _tree(c: Comparison) -> dict:
    j = c.journeys

    def values(of) -> list[dict]:
        return [{"currency": currency, "value_micros": micros} for currency, micros in zip(j.currencies, of)]

    return {
        "advertiser_id": j.advertiser, "conversions": j.conversions, "value": values(j.value),
        "without_touch": {"conversions": j.untouched, "value": values(j.untouched_value)},
        "converting_paths": j.converting, "other_paths": j.nulls, "touches": j.touches, "markov_order": c.order,
        "rules": [rule.version for rule in j.rules],
        "campaigns": [{
            "campaign_id": campaign,
            "models": {m.name: {
                "conversions": _plain(texts.conversions(m.credit[i])),
                "standard_error": m.errors[i] if m.errors else 0.0,
                "value": values(of[i] for of in m.micros),
            } for m in c.models},
        } for i, campaign in enumerate(c.campaigns)],
    }


def _plain(figure: str) -> str:
    return figure.replace(",", "")


def _write_csv(path: Path, compared: Sequence[Comparison]) -> None:
    """A row for each campaign and model; a column of micros for each currency of any."""
    currencies = sorted({c for one in compared for c in one.journeys.currencies}, key=lambda c: (c is None, c or ""))
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        out = csv_files.writer(file)
        out.writerow(["advertiser_id", "campaign_id", "model", "conversions", "standard_error",
                      *("value_micros" if c is None else f"value_micros_{c}" for c in currencies)])
        for c in compared:
            place = {currency: i for i, currency in enumerate(c.journeys.currencies)}
            for i, campaign in enumerate(c.campaigns):
                for m in c.models:
                    name = f"markov_{c.order}" if m.name == "markov" else m.name
                    out.writerow([c.journeys.advertiser, campaign, name, _plain(texts.conversions(m.credit[i])),
                                  m.errors[i] if m.errors else 0,
                                  *(m.micros[place[k]][i] if k in place else 0 for k in currencies)])


# -- for a person -----------------------------------------------------------------------------------------------------

def _show(c: Comparison) -> None:
    """Conversions, and below them the value by currency, of each campaign and model; rounded to two places."""
    j, console = c.journeys, Console(highlight=False)
    title = (f"{texts.one_line(j.advertiser)}: {j.conversions:,} conversions, {j.untouched:,} of them without a touch; "
             f"{j.nulls:,} paths without a conversion")
    rows = []
    for i in range(c.rows):
        name, sign = (texts.one_line(c.campaigns[i]), "±") if i < len(c.campaigns) else (texts.others(c), "≤")
        rows.append((name, [_lines(c, m.credit[i], [of[i] for of in m.micros], m.errors and f"{sign}{m.errors[i]:,.2g}")
                            for m in c.models]))
    rows.append(("sum", [_lines(c, sum(m.credit), [sum(of) for of in m.micros], None) for m in c.models]))
    heads = [f"{texts.LABELS[m.name]} {c.order}" if m.name == "markov" else texts.LABELS[m.name] for m in c.models]
    if not console.is_terminal:
        print(title)
        print("\t".join(["campaign", *heads]))
        for name, cells in rows:
            print("\t".join([name, *("; ".join(lines) for lines in cells)]))
        return
    table = Table(title=Text(title, "bold"), box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    table.add_column("Campaign", overflow="fold", min_width=10)
    for head in heads:
        table.add_column(head.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for i, (name, cells) in enumerate(rows):
        if i == len(rows) - 1:
            table.add_section()
        table.add_row(Text(name), *(Text.assemble(lines[0], *((f"\n{line}", "dim") for line in lines[1:])) for lines in cells))
    console.print(table)


def _lines(c: Comparison, credit: int, micros: Sequence[int], error: str | None) -> list[str]:
    currencies = c.journeys.currencies
    lines = [texts.conversions(credit, 2)]
    if error is not None:
        lines.append(error)
    return lines + [texts.amount(m, 2) + (f" {texts.one_line(k or '-')}" if len(currencies) > 1 else "")
                    for m, k in zip(micros, currencies)]
