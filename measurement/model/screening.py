"""The ``screening`` section of a policy file: lists of networks, rates, consent (contract section 6)."""

import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from measurement.model.lists import ListFacts
from measurement.model.policy_file import PolicyError, only, tree_of
from measurement.rules import iab, networks
from measurement.rules.consent import Asked
from measurement.rules.iab import Iab
from measurement.rules.networks import NetworkList
from measurement.rules.robots import facts

DROP_USER, REJECT = "drop_user", "reject"
_KNOWN = {
    "screening": {"networks", "listed", "iab", "rate", "consent"},
    "screening.iab": {"exclude", "include", "networks"},
    "screening.rate": {"per_user_hour", "per_ip_hour"},
    "screening.consent": {"required_in", "vendor", "purposes", "otherwise"},
}
_MOST_A_HOUR = 10_000_000
_PURPOSES, _VENDORS = 24, 65_535  # what a TC string has room for


@dataclass(frozen=True)
class Rate:
    """The most distinct accepted events of one user or one address in an hour of event time; None: any number."""

    per_user_hour: int | None = None
    per_ip_hour: int | None = None

    @property
    def asked(self) -> bool:
        return self.per_user_hour is not None or self.per_ip_hour is not None


@dataclass(frozen=True)
class Consent:
    """Where consent is asked for (ISO 3166-1 alpha-2), what for, and what becomes of an event without it."""

    required_in: frozenset[str]
    asked: Asked = Asked()
    otherwise: str = DROP_USER


@dataclass(frozen=True)
class Screening:
    """What accepted events are screened by. Without a policy only declared robots are."""

    datacentre: tuple[NetworkList, ...] = ()
    listed: tuple[NetworkList, ...] = ()
    iab: Iab | None = None
    rate: Rate = Rate()
    consent: Consent | None = None
    # Of the hash that rates know users and addresses by; made anew with each start that has no earlier state.
    key: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False, compare=False)

    @property
    def lists(self) -> list[ListFacts]:
        """Every list in force, in the order of the reasons."""
        licensed = () if self.iab is None else self.iab.facts
        return [facts(), *licensed, *(found.facts for found in (*self.datacentre, *self.listed))]


def parse(path: Path, tree) -> Screening:
    """The section of the policy file ``path``, whose lists lie relative to it; PolicyError in one line for what is wrong."""
    if tree is None:
        return Screening()
    only(path, "screening", tree, _KNOWN["screening"])
    licensed = {key: _file(path, f"iab.{key}", name) for key, name in (_section(path, "screening.iab", tree.get("iab")) or {}).items()}
    if "include" in licensed and "exclude" not in licensed:
        raise PolicyError(f"{path}: screening.iab: include is used beside exclude alone")
    addresses = [iab.read_networks(licensed.pop("networks"))] if "networks" in licensed else []
    return Screening(
        _networks(path, "networks", tree, "datacentre"), (*_networks(path, "listed", tree, "listed"), *addresses),
        iab.read(**licensed) if licensed else None,
        _rate(path, _section(path, "screening.rate", tree.get("rate"))),
        _consent(path, _section(path, "screening.consent", tree.get("consent"))),
    )


def files_of(path: Path) -> list[str]:
    """The files of lists that a policy file names, as it names them; none of what ``parse`` would refuse."""
    try:
        tree = tree_of(path, path.read_text())
    except (PolicyError, UnicodeDecodeError):
        return []
    found = tree.get("screening") if isinstance(tree, dict) else None
    named = []
    for key in ("networks", "listed", "iab") if isinstance(found, dict) else ():
        names = found.get(key)
        named += names.values() if isinstance(names, dict) else names if isinstance(names, list) else []
    return [name for name in named if isinstance(name, str)]


def _section(path: Path, at: str, tree) -> dict | None:
    if tree is not None:
        only(path, at, tree, _KNOWN[at])
    return tree


def _networks(path: Path, key: str, tree: dict, reason: str) -> tuple[NetworkList, ...]:
    names = tree.get(key) or []
    if not isinstance(names, list):
        raise PolicyError(f"{path}: screening.{key}: {names!r} is no list of files")
    return tuple(networks.read(_file(path, key, name), reason) for name in names)


def _file(path: Path, key: str, name) -> Path:
    if not isinstance(name, str) or not name:
        raise PolicyError(f"{path}: screening.{key}: {name!r} is no file")
    return path.parent / name


def _rate(path: Path, tree: dict | None) -> Rate:
    return Rate(**{key: _whole(path, f"rate.{key}", n, 1, _MOST_A_HOUR) for key, n in (tree or {}).items()})


def _consent(path: Path, tree: dict | None) -> Consent | None:
    if tree is None:
        return None
    countries = tree.get("required_in")
    if not isinstance(countries, list) or not countries:
        raise PolicyError(f"{path}: screening.consent.required_in: must list the countries where consent is asked for")
    for country in countries:
        # YAML 1.1 takes NO, Norway, for a false
        if not isinstance(country, str) or not re.fullmatch("[A-Z]{2}", country):
            hint = ' (write "NO" in quotes)' if country is False else ""
            raise PolicyError(f"{path}: screening.consent.required_in: {country!r} is no country code such as DE{hint}")
    purposes = tree.get("purposes", [7])
    if not isinstance(purposes, list) or not purposes:
        raise PolicyError(f"{path}: screening.consent.purposes: must list the purposes that need consent, such as [7]")
    asked = Asked(_whole(path, "consent.vendor", tree.get("vendor", 0), 0, _VENDORS),
                  tuple(_whole(path, "consent.purposes", purpose, 1, _PURPOSES) for purpose in purposes))
    otherwise = tree.get("otherwise", DROP_USER)
    if otherwise not in (DROP_USER, REJECT):
        raise PolicyError(f"{path}: screening.consent.otherwise: {otherwise!r} is neither {DROP_USER} nor {REJECT}")
    return Consent(frozenset(countries), asked, otherwise)


def _whole(path: Path, key: str, value, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise PolicyError(f"{path}: screening.{key}: {value!r} is no whole number from {least} to {most:,}")
    return value
