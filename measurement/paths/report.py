"""The comparison as one HTML file that needs nothing else: no script, no font, no request.

Every text from outside goes through ``_text``. The plot's lengths are percentages and its letters are of fixed size, so that
it is as legible on a phone as on a desk.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from math import floor, log10

from measurement.paths import texts
from measurement.paths.compare import Comparison, Model

_PLOTTED = 10  # campaigns
_BAR, _NAME, _GAP = 13, 20, 12  # px: a bar, a campaign's name over its bars, space below them
_AXIS = 22  # px, above and below
_WIDTH = 84  # % of the plot for the bars; behind the longest stands its figure
_NAME_LETTERS = 44  # of a campaign's name in the plot, as wide as a phone

# Tol's "muted" scheme, which colour-blind readers can tell apart; the rule-based models are the cold ones.
_COLOURS = {
    "last_touch": "#332288", "first_touch": "#88ccee", "linear": "#44aa99", "time_decay": "#117733",
    "position_based": "#999933", "markov": "#cc6677", "shapley": "#882255", "shapley_rate": "#ddcc77",
}
_SAID = {
    "last_touch": "all to the last touch before the conversion",
    "first_touch": "all to the first",
    "linear": "the same to each touch",
    "time_decay": "half as much for each half-life that a touch lies further back",
    "position_based": "the stated weights to the first touch, those between, and the last",
    "markov": "by the share of conversions that is lost when every step to the campaign ends without one (removal effect)",
    "shapley": "what the campaign adds to the conversions of those before it, the mean over all orders of campaigns",
    "shapley_rate": "the same for the share of paths that convert; below 0 where a campaign lowers it",
}

_CSS = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: #fff; color: #1a1a1a;
       font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid #767676; overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
a { color: #0b4f9e; }
nav ul, .legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; margin: .5rem 0; padding: 0; }
nav li { overflow-wrap: anywhere; }
.counted { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: .5rem 0; }
.counted dt { color: #505050; }
.counted dd { margin: 0; overflow-wrap: anywhere; }
.models dt { font-weight: 600; }
.models dd { margin: 0 0 .5rem; }
figure { margin: .5rem 0; }
figure > svg { display: block; width: 100%; font-size: 12px; }
figure > svg text { fill: #1a1a1a; stroke: #fff; stroke-width: 3px; paint-order: stroke; }
.legend { font-size: .875rem; }
.legend svg { width: .8rem; height: .8rem; margin-right: .35rem; vertical-align: -.05rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .8125rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .35rem; color: #505050; }
th, td { padding: .3rem .4rem; border-bottom: 1px solid #d9d9d9; text-align: right; vertical-align: top; white-space: nowrap; }
thead th { white-space: normal; vertical-align: bottom; border-bottom: 1px solid #767676; }
tfoot th, tfoot td { font-weight: 600; border-bottom: 0; border-top: 1px solid #767676; }
th:first-child { position: sticky; left: 0; background: #fff; text-align: left; white-space: normal; overflow-wrap: anywhere;
                 min-width: min(11rem, 34vw); max-width: 38vw; font-weight: 600; }
.fine { color: #666; font-weight: 400; }
.error { display: block; color: #505050; }
footer { margin-top: 2.5rem; font-size: .875rem; color: #505050; }
@media print { h2 { break-before: page; } .wide { overflow: visible; } }
"""


def page(
    comparisons: Sequence[Comparison], since: int | None = None, until: int | None = None, top: int = 20,
    left_out: int = 0, made: datetime | None = None,
) -> str:
    """The document. Each advertiser has its ``top`` campaigns and the sum of the others; ``left_out`` is how many have no
    conversions in [since, until) µs. ``made``: the time to state, now if not given."""
    title = "Attribution models compared"
    if len(comparisons) == 1:
        title += f": {_text(comparisons[0].journeys.advertiser)}"
    made = datetime.now(UTC) if made is None else made
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        # A browser then holds the file to what it promises.
        """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">""",
        f"<title>{title}</title><style>{_CSS}</style></head><body><header><h1>{title}</h1>",
        _counted([("Conversions", texts.span(since, until)), ("Markov chain", f"order {comparisons[0].order}")]
                 if comparisons else [("Conversions", texts.span(since, until))]),
    ]
    if left_out:
        parts.append(f"<p>{left_out:,} more advertiser{'s' * (left_out > 1)} without conversions in this range.</p>")
    if len(comparisons) > 1:
        links = "".join(f'<li><a href="#advertiser-{i}">{_text(c.journeys.advertiser)}</a></li>' for i, c in enumerate(comparisons))
        parts.append(f'<nav aria-label="Advertisers"><ul>{links}</ul></nav>')
    parts.append("</header><main>")
    parts += [_advertiser(i, c.top(top)) for i, c in enumerate(comparisons)]
    parts.append(_explained())
    parts.append(f"</main><footer>Made {made:%Y-%m-%d %H:%M} UTC.</footer></body></html>\n")
    return "".join(parts)


def _advertiser(number: int, c: Comparison) -> str:
    j, name = c.journeys, _text(c.journeys.advertiser)
    value = ", ".join(f"{texts.amount(micros, 2)} {texts.currency(currency)}" for micros, currency in zip(j.value, j.currencies))
    parts = [
        f'<section id="advertiser-{number}" aria-labelledby="name-{number}"><h2 id="name-{number}">{name}</h2>',
        _counted([
            ("Conversions", f"{j.conversions:,}, worth {value}" if j.conversions else "0"),
            ("With a touch", f"{j.converting:,} converting paths, shared below"),
            ("Without a touch", f"{j.untouched:,}, nobody's credit"),
            ("Other paths", f"{j.nulls:,} without a conversion"),
            ("Touches", f"{j.touches:,} in all these paths"),
            *(("Rule" if len(j.rules) == 1 else f"Rule {i}", texts.rule(rule)) for i, rule in enumerate(j.rules, 1)),
        ]),
    ]
    if not c.rows:
        return "".join(parts) + "<p>No path with a campaign.</p></section>"
    parts += [_figure(number, c), "<h3>Conversions</h3>",
              _table(c, "Credit in conversions, by campaign and model", [m.credit for m in c.models], texts.conversions, 6,
                     [m.errors for m in c.models])]
    for i, currency in enumerate(j.currencies):
        unit = texts.currency(currency)
        parts += [f"<h3>Value, {_text(unit)}</h3>",
                  _table(c, f"Credited value in {unit}, by campaign and model", [m.micros[i] for m in c.models], texts.amount, 4)]
    return "".join(parts) + "</section>"


def _counted(rows: Sequence[tuple[str, str]]) -> str:
    return '<dl class="counted">' + "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in rows) + "</dl>"


def _explained() -> str:
    said = "".join(f"<dt>{label}</dt><dd>{_text(_SAID[name])}</dd>" for name, label in texts.LABELS.items())
    return (
        '<section aria-labelledby="models"><h2 id="models">The models</h2>'
        "<p>All share the same converting paths; Markov and the rate of Shapley also learn from the paths that did not convert. "
        "Each model&#x27;s credits sum to the same conversions and the same value.</p>"
        f'<dl class="models">{said}</dl>'
        "<p>± is one standard error, where a model draws orders of campaigns at random because they are too many to go through. "
        "Of a sum of campaigns it is a bound (≤).</p></section>")


# -- the table --------------------------------------------------------------------------------------------------------

def _table(c: Comparison, caption: str, figures: Sequence[Sequence[int]], text, fine: int, errors=None) -> str:
    """``figures`` by model and row; ``text`` writes one exactly, of which ``fine`` last digits are set back."""
    errors = errors or [None] * len(figures)

    def cell(figure: int, error: float | None = None, bound: bool = False) -> str:
        exact = text(figure)
        off = "" if error is None else f'<span class="error">{"≤" if bound else "±"} {error:,.3g}</span>'
        return f'<td>{exact[:-fine]}<span class="fine">{exact[-fine:]}</span>{off}</td>'

    rows = []
    for i in range(c.rows):
        sum_of_others = i == len(c.campaigns)
        name = texts.others(c) if sum_of_others else c.campaigns[i]
        rows.append(f'<tr><th scope="row"><bdi>{_text(name)}</bdi></th>' + "".join(
            cell(of[i], error[i] if error else None, sum_of_others) for of, error in zip(figures, errors)) + "</tr>")
    heads = "".join(f'<th scope="col">{_label(m, c)}</th>' for m in c.models)
    sums = "".join(cell(sum(of)) for of in figures)
    return (f'<div class="wide" role="region" aria-label="{_text(caption)}" tabindex="0"><table><caption>{_text(caption)}</caption>'
            f'<thead><tr><th scope="col">Campaign</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody>'
            f'<tfoot><tr><th scope="row">Sum</th>{sums}</tr></tfoot></table></div>')


def _label(model: Model, c: Comparison) -> str:
    return f"{texts.LABELS[model.name]}{f', order {c.order}' if model.name == 'markov' else ''}"


# -- the plot ---------------------------------------------------------------------------------------------------------

def _figure(number: int, c: Comparison) -> str:
    legend = "".join(
        f'<li><svg aria-hidden="true" viewBox="0 0 10 10"><rect width="10" height="10" fill="{_COLOURS[m.name]}" '
        f'stroke="#333"/></svg>{_label(m, c)}</li>' for m in c.models)
    shown = min(len(c.campaigns), _PLOTTED)
    more = len(c.campaigns) + c.others - shown
    said = f" The {shown} campaigns with most last-touch credit; {more:,} more are not drawn." if more else ""
    return (f'<figure><figcaption>Conversions by campaign and model.{said}</figcaption><ul class="legend">{legend}</ul>'
            f"{_plot(number, c, shown)}</figure>")


def _plot(number: int, c: Comparison, shown: int) -> str:
    group = _NAME + _BAR * len(c.models) + _GAP
    height = 2 * _AXIS + shown * group
    spans = [_reach(m, i) for m in c.models for i in range(shown)]
    low, high = min(0.0, *(a for a, _ in spans)), max(0.0, *(b for _, b in spans))
    step = _step(high - low)
    scale = _WIDTH / ((high - low) or 1)

    def x(figure: float) -> str:
        return f"{(figure - low) * scale:.3f}%"

    drawn = [f'<svg role="img" aria-labelledby="plot-{number}" height="{height}"><title id="plot-{number}">'
             f"Bars of the conversions that each model gives each campaign; the table below has the figures</title>"]
    places = max(0, -floor(log10(step)))
    for tick in range(-floor(-low / step), floor(high / step) + 1):
        at, bold = x(tick * step), tick == 0
        drawn.append(f'<line x1="{at}" x2="{at}" y1="{_AXIS - 6}" y2="{height - _AXIS + 4}" stroke="{"#333" if bold else "#ddd"}"/>')
        anchor = "start" if (tick * step - low) * scale < 4 else "middle"
        drawn += [f'<text x="{at}" y="{y}" text-anchor="{anchor}">{tick * step:,.{places}f}</text>'
                  for y in (_AXIS - 9, height - _AXIS + 18)]
    for i in range(shown):
        top, name = _AXIS + i * group, texts.one_line(c.campaigns[i])
        short = name if len(name) <= _NAME_LETTERS else name[: _NAME_LETTERS - 1] + "…"
        drawn.append(f'<text x="0" y="{top + _NAME - 5}" font-weight="600">'
                     f'{escape(short)}<title>{escape(name)}</title></text>')
        for k, m in enumerate(c.models):
            y, figure = top + _NAME + k * _BAR, m.credit[i] / 1e9
            begin, end = sorted((0.0, figure))
            drawn.append(f'<rect x="{x(begin)}" y="{y}" width="{(end - begin) * scale:.3f}%" height="{_BAR - 2}" '
                         f'fill="{_COLOURS[m.name]}" stroke="#333" stroke-width=".5"><title>{_label(m, c)}: '
                         f"{texts.conversions(m.credit[i])}</title></rect>")
            if m.errors is not None:
                middle, error = y + (_BAR - 2) / 2, m.errors[i]
                drawn.append(f'<line x1="{x(figure - error)}" x2="{x(figure + error)}" y1="{middle}" y2="{middle}" '
                             'stroke="#1a1a1a" stroke-width="1.5"/>')
            drawn.append(f'<text x="{x(_reach(m, i)[1])}" dx="5" y="{y + _BAR - 3}" font-size="11">'
                         f"{texts.conversions(m.credit[i], 2)}</text>")
    return "".join(drawn) + "</svg>"


def _reach(model: Model, row: int) -> tuple[float, float]:
    """From where to where a bar and its error go."""
    figure, error = model.credit[row] / 1e9, model.errors[row] if model.errors else 0.0
    return min(0.0, figure - error), max(0.0, figure + error)


def _step(span: float) -> float:
    """Between ticks: 1, 2 or 5 times a power of ten, so that there are some three to six."""
    if span <= 0:
        return 1.0
    power = 10.0 ** floor(log10(span / 3))
    return next(power * m for m in (5, 2, 1) if power * m <= span / 3)


def _text(text: str) -> str:
    return escape(texts.one_line(text))
