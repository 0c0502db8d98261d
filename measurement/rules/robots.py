"""Declared robots by user agent: general invalid traffic (GIVT), MRC Invalid Traffic Detection and Filtration
Standards Addendum (2020), section 1: known bots and spiders by a maintained list.

The list is the openly licensed package crawler-user-agents (MIT); its version is part of ``rule_version``. A pattern per
event would be far too slow; distinct user agents are few, so verdicts are kept by value.
"""

from functools import lru_cache
from importlib.metadata import version

import crawleruseragents

# A user agent is judged by its first characters alone: real ones are some hundred, and patterns searched in a text of
# megabytes would make one hostile event stall its batch.
JUDGED_CHARACTERS = 2_000

LIST_VERSION = f"crawler-user-agents-{version('crawler-user-agents')}"


@lru_cache(maxsize=100_000)
def _listed(user_agent: str) -> bool:
    return crawleruseragents.is_crawler(user_agent)


def is_robot(user_agent: str) -> bool:
    """Whether the list declares the user agent a robot."""
    return _listed(user_agent[:JUDGED_CHARACTERS])
