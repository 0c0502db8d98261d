"""Whether a consent string grants what is asked: a TC string of IAB's Transparency & Consent Framework v2, or a GPP string.

Their first characters tell them apart, C for version 2 of the one and D for the header of the other (IAB Tech Lab, GPP
"Section Information"). Anything else is no consent, and so is a string that does not parse or that its framework calls
invalid. Answers are not kept here: most strings are distinct, and the caller knows which it sees again.
"""

from typing import NamedTuple

from measurement.rules import gpp, tcf

# Longer strings are not looked at, so that a hostile one costs no time: ten bits for each of some thousand vendors still fit.
LONGEST = 10_000


class Asked(NamedTuple):
    """What is asked of the user: ``purposes`` 1 to 24, 7 being the measurement of ad performance, and a vendor; 0: none."""

    vendor: int = 0
    purposes: tuple[int, ...] = (7,)


def granted(text: str, asked: Asked) -> bool:
    """Whether ``text`` holds the consent to every purpose asked and to the vendor, none of them taken away by the publisher."""
    if len(text) > LONGEST:
        return False
    try:
        if text.startswith("C"):
            return tcf.granted(text, asked.vendor, asked.purposes)
        return text.startswith("D") and gpp.granted(text, asked.vendor, asked.purposes)
    except ValueError:
        return False
