"""How times, spans, names and counts are worded for a person."""

from measurement.explain.said import TIMES
from measurement.model.events import MICROS_PER_HOUR, MICROS_PER_SECOND
from measurement.model.lists import ListFacts
from measurement.paths.texts import amount, one_line, time

__all__ = ["amount", "time"]

PLAIN = {"user_agent": "user agent", "ip": "address"}
_LONGEST = 200  # characters of a name from outside
_UNITS = ((24 * MICROS_PER_HOUR, "d"), (MICROS_PER_HOUR, "h"), (60 * MICROS_PER_SECOND, "min"))


def name(text) -> str:
    """A text from outside on one line and of bearable length."""
    text = one_line(str(text))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def value(field: str, of) -> str:
    """A field's value."""
    if field in TIMES:
        try:
            return time(of)
        except OverflowError:
            return str(of)  # a bad value: no calendar has that day
    return ("true" if of else "false") if isinstance(of, bool) else name(of)


def span(micros: int) -> str:
    """A span in its two largest units."""
    micros, said = abs(micros), []
    for size, unit in _UNITS:
        if micros >= size and len(said) < 2:
            said.append(f"{micros // size} {unit}")
            micros %= size
    if len(said) < 2 and (micros or not said):
        said.append(_seconds(micros, 0 if said else 3))
    return " ".join(said)


def _seconds(micros: int, places: int) -> str:
    """With so many decimals, or with all where these would say 0."""
    whole = round(micros / MICROS_PER_SECOND, places)
    text = f"{micros / MICROS_PER_SECOND:.{places if whole else 6}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + " s"


def behind(micros: int, word: str = "behind", other: str = "ahead of") -> str:
    """``3 s behind``, or the other way round where the span is negative."""
    return "at the very time of" if not micros else f"{span(micros)} {word if micros > 0 else other}"


def before(micros: int) -> str:
    return behind(micros, "before", "after")


def a(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'s' * (n != 1)}"


def listing(names) -> str:
    return ", ".join(names)


def adds(sums: dict[str, int]) -> str:
    """What is added to a delivery row."""
    if not sums:
        return "adds nothing"
    said = [f"{amount(n)} of spend" if of == "spend_micros" else f"{n:,} to {of}" for of, n in sums.items()]
    return f"adds {', '.join(said)}"


def listed(found: ListFacts) -> str:
    """A list with its version and date."""
    more = [f"version {found.version}"] if found.version else []
    more += [found.date.isoformat()] if found.date else []
    return name(found.name) + (f" ({', '.join(more)})" if more else "")
