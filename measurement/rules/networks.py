"""Files of networks: data centres, proxies and other listed addresses, general invalid traffic (GIVT) by MRC Invalid
Traffic Detection and Filtration Standards Addendum (2020), section 1.

One network in CIDR notation (RFC 4632, RFC 4291) or one address a line; ``#`` begins a comment, also behind an entry.
Comments in front of the first network may say ``# version: 7`` and ``# date: 2026-11-01``.
"""

import re
from dataclasses import dataclass
from datetime import date
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from measurement.model.lists import ListFacts, checksum
from measurement.model.policy_file import PolicyError

_SHOWN = 80  # characters of a line in an error
_HEAD = re.compile(r"#+\s*(version|date)\s*:\s*(.*\S)", re.IGNORECASE)
_PREFIX = re.compile(r"[0-9]{1,3}", re.ASCII)


@dataclass(frozen=True)
class NetworkList:
    facts: ListFacts
    networks: tuple[IPv4Network | IPv6Network, ...]  # as the file has them


def read(path: Path, reason: str, strict: bool = True) -> NetworkList:
    """The networks of a file; PolicyError in one line for a file or a line that cannot be used.

    A line is wrong that is no network, has bits set behind its prefix (unless not ``strict``: then they are left out) or
    a scope id. A file without any network is wrong too: it is rather cut short than meant.
    """
    data = content(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path}: not a text file") from error
    found: list[IPv4Network | IPv6Network] = []
    head: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        entry, mark, _ = line.partition("#")
        entry = entry.strip()
        if entry:
            found.append(_network(path, number, entry, strict))
        elif mark and not found and (said := _HEAD.match(line.strip())):
            head.setdefault(said[1].lower(), (number, said[2]))
    if not found:
        raise PolicyError(f"{path}: there is no network in it")
    version, made = head.get("version"), head.get("date")
    facts = ListFacts(path.name, reason, version and version[1], made and _day(path, *made), len(found), checksum(data))
    return NetworkList(facts, tuple(found))


def content(path: Path) -> bytes:
    """A list's bytes; PolicyError if they cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror or error}") from error


def wrong(path: Path, number: int, line: str, why: str) -> PolicyError:
    """The error of one line; what is shown of it stays one line whatever stands in it."""
    shown = "".join(c if c.isprintable() else "?" for c in line[:_SHOWN])
    return PolicyError(f"{path}, line {number}: {why}: {shown}")


def _day(path: Path, number: int, text: str) -> date:
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
            return date.fromisoformat(text)
    except ValueError:
        pass  # a day that no month has
    raise wrong(path, number, text, "no date such as 2026-11-01")


def _network(path: Path, number: int, entry: str, strict: bool) -> IPv4Network | IPv6Network:
    family = IPv6Network if ":" in entry else IPv4Network
    why = "neither a network such as 192.0.2.0/24 or 2001:db8::/32 nor an address"
    _, mark, prefix = entry.partition("/")
    if "%" not in entry and (not mark or _PREFIX.fullmatch(prefix)):  # ``ipaddress`` also takes a scope id and a netmask
        try:
            return family(entry, strict=strict)
        except ValueError:
            try:
                why = f"bits are set behind the prefix, the network is {family(entry, strict=False)}"
            except ValueError:
                pass  # it is no network at all
    raise wrong(path, number, entry, why)
