"""The networks that a screened log's policy names; addresses in them, beside them and far from them, and what each is called.

People's addresses (`events`) are numbers and lie in few of these networks, by arithmetic; all others are written out here.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network
from typing import NamedTuple

import numpy as np

from measurement.model.events import INVALID_REASONS

DATACENTRES = (
    "3.120.0.0/14",
    "34.64.0.0/10",
    "34.90.0.0/15",  # within the one before
    "104.16.0.0/13",
    "178.128.0.0/14",  # some people's, too
    "2600:1f00::/24",
    "2a06:98c0::/29",
)
LISTED = (
    "34.91.128.0/17",  # in a data centre, which is the first reason
    "45.95.168.17/32",
    "91.192.0.0/14",  # some people's, too
    "185.220.100.0/22",
    "2600:1f18::/33",  # in a data centre
    "2a0b:f4c0::/32",
    "2a0e:97c0:123::1/128",
)
NONE, DATACENTRE, LISTED_REASON = (INVALID_REASONS.index(name) for name in ("", "datacentre", "listed"))

WRITTEN = 1 << 62  # an address that is WRITTEN + i is the text ADDRESSES[i]; numbers of people's addresses are below
_HOSTS = 16  # of a network
_CROWDS = 48  # addresses in no network that very many share


class Address(NamedTuple):
    text: str
    number: int  # equal for all spellings of one address, an IPv4 address's own
    reason: int


def file_text(networks: tuple[str, ...], what: str) -> str:
    """One a line."""
    return "\n".join((f"# {what}", "# version: 7", "# date: 2026-02-27", "", *networks, ""))


def reasons_of(ip: np.ndarray) -> np.ndarray:
    """Reasons (i1) of addresses (i8) by the networks alone."""
    written = ip >= WRITTEN
    reason = np.zeros(ip.size, np.int8)
    reason[written] = _REASONS[ip[written] - WRITTEN]
    for networks, name in ((LISTED, LISTED_REASON), (DATACENTRES, DATACENTRE)):
        for network in map(ip_network, networks):
            if isinstance(network, IPv4Network):
                reason[ip >> 32 - network.prefixlen == int(network.network_address) >> 32 - network.prefixlen] = name
    return reason


def numbers_of(ip: np.ndarray) -> np.ndarray:
    """Of addresses (i8) numbers that are equal where the addresses are, however they are written."""
    written = ip >= WRITTEN
    number = ip.copy()
    number[written] = _NUMBERS[ip[written] - WRITTEN]
    return number


def _hosts(network: str) -> list[IPv4Address | IPv6Address]:
    """The first, the last and some between; and the neighbours on either side."""
    size = ip_network(network).num_addresses
    first = int(ip_network(network).network_address)
    inside = sorted({first + (size - 1) * k // (_HOSTS - 1) for k in range(_HOSTS)})
    kind = type(ip_network(network).network_address)
    return [kind(number) for number in (first - 1, *inside, first + size)]


def _reason(address: IPv4Address | IPv6Address) -> int:
    for networks, name in ((DATACENTRES, DATACENTRE), (LISTED, LISTED_REASON)):
        if any(address in ip_network(network) for network in networks):
            return name
    return NONE


def _spellings(address: IPv4Address | IPv6Address) -> tuple[str, ...]:
    if isinstance(address, IPv4Address):
        return str(address), f"::ffff:{address}"
    return str(address), address.exploded, address.exploded.upper()


def _written() -> list[Address]:
    of_networks = [address for network in DATACENTRES + LISTED for address in _hosts(network)]
    crowds = [ip_address(text) for k in range(_CROWDS // 2) for text in (f"154.16.{k}.7", f"2a0c:5c80:0:{k:x}::1f")]
    distinct = list(dict.fromkeys(of_networks + crowds))
    return [
        Address(text, int(address) if address.version == 4 else -10 - i, _reason(address))
        for i, address in enumerate(distinct) for text in _spellings(address)
    ]


ADDRESSES = _written()
_REASONS = np.array([address.reason for address in ADDRESSES], np.int8)
_NUMBERS = np.array([address.number for address in ADDRESSES], np.int64)


def by_reason(reason: int) -> np.ndarray:
    """Addresses (i8) of a reason, all spellings."""
    return WRITTEN + np.flatnonzero(reason == _REASONS)


# Each crowd's address in all its spellings, end to end, and how many each has.
CROWDS = [
    WRITTEN + np.flatnonzero(_NUMBERS == number)
    for number in dict.fromkeys(
        address.number for address in ADDRESSES if address.text.startswith(("154.16.", "2a0c:5c80:"))
    )
]
