"""How often who may ask: a bucket of tokens a key, and one a network address for keys that are none."""

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_MOST_BUCKETS = 50_000  # beyond them the one unused for longest is forgotten, which is a full one again


@dataclass(frozen=True)
class Limits:
    """Requests a second and at once, of a key; refused keys a second and at once, of an address; requests under way and waiting,
    of everyone; pages of days made at once."""

    rate: float = 50
    burst: int = 100
    refused_rate: float = 1
    refused_burst: int = 20
    under_way: int = 256
    days_at_once: int = 2


class Buckets:
    """One bucket of ``burst`` tokens for each who asks, filled by ``rate`` a second. For one thread."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]):
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # who: tokens, and when there were so many

    def take(self, who: str) -> int:
        """0 where a token was there; else the whole seconds after which one will be."""
        now = self._clock()
        tokens, at = self._left.pop(who, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._rate)
        wait = 0 if tokens >= 1 else max(1, math.ceil((1 - tokens) / self._rate))
        self._left[who] = (tokens if wait else tokens - 1, now)
        if len(self._left) > _MOST_BUCKETS:
            self._left.popitem(last=False)
        return wait


def network(host: str) -> str:
    """By what an address is counted: IPv4 as it is, IPv6 by its /64, which is one customer's."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return host
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address) >> 64 << 64, 64)))
