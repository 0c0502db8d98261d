"""Which entry of which list a user agent or an address is found in: the batch check says only that there is one."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from measurement.model.lists import ListFacts
from measurement.model.screening import Screening
from measurement.rules import robots
from measurement.rules.iab import Iab
from measurement.rules.networks import NetworkList

_MAPPED_BITS = 96  # of ::ffff:0:0/96, the IPv4 addresses among IPv6 ones


@dataclass(frozen=True)
class Match:
    """``entry``: the network or the pattern."""

    list: ListFacts
    entry: str


def agent(text: str | None, screening: Screening) -> Match | None:
    """Why a user agent is a declared robot's; None where it is not."""
    if not text:
        return None
    if found := robots.found_in(text):
        return Match(robots.facts(), found[0])
    if screening.iab is not None:
        return _licensed(text[: robots.JUDGED_CHARACTERS].lower(), screening.iab)
    return None


def _licensed(text: str, iab: Iab) -> Match | None:
    for entry in iab.robots:
        there = text.startswith(entry.pattern) if entry.at_start else entry.pattern in text
        if there and not any(exception in text for exception in entry.exceptions):
            return Match(iab.facts[0], entry.pattern)
    if iab.browsers is not None:
        known = (text.startswith(e.pattern) if e.at_start else e.pattern in text for e in iab.browsers)
        if not any(known):
            return Match(iab.facts[1], "none of its valid browsers")
    return None


def address(text: str | None, lists: tuple[NetworkList, ...]) -> Match | None:
    """The narrowest network that holds an address, of the first list that has one."""
    if not text:
        return None
    ip = ip_address(text)
    four = ip if ip.version == 4 else ip.ipv4_mapped
    for found in lists:
        if holding := [network for network in found.networks if _holds(network, ip, four)]:
            return Match(found.facts, str(max(holding, key=lambda network: network.prefixlen)))
    return None


def _holds(network, ip: IPv4Address | IPv6Address, four: IPv4Address | None) -> bool:
    if four is None:
        return network.version == 6 and ip in network
    if network.version == 4:
        return four in network
    # A network wider than all of IPv4's place in IPv6 does not reach it.
    return network.prefixlen >= _MAPPED_BITS and IPv6Address(0xFFFF << 32 | int(four)) in network
