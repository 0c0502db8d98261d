"""Reading a policy file: its YAML without keys given twice, and the checks that all sections share.

Every failure is a PolicyError of one line that names the file and the key.
"""

import re
from pathlib import Path

import yaml

from measurement.model.events import MICROS_PER_SECOND

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MERGE = "tag:yaml.org,2002:merge"


class PolicyError(ValueError):
    """A policy that cannot be used; the message is one line naming file and key."""


class _Twice(Exception):
    pass


class _OnceLoader(yaml.SafeLoader):
    """YAML in which a key stands once: plain PyYAML takes the last of two and loses the other in silence."""

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if (key.tag, key.value) in seen:
                    raise _Twice(f"line {key.start_mark.line + 1}: the key {key.value!r} stands here twice")
                seen.add((key.tag, key.value))
        return node


def tree_of(path: Path, text: str):
    """What the YAML text holds; ``path`` is only named in errors."""
    try:
        return yaml.load(text, _OnceLoader)
    except _Twice as error:
        raise PolicyError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # PyYAML lets the ValueError of a date such as 2026-13-01 pass
        raise PolicyError(f"{path}: not YAML: {' '.join(str(error).split())}") from error


def only(path: Path, at: str, tree, known: set[str] | None) -> None:
    """Refuses what is no mapping, and keys that are not ``known`` (None: any)."""
    if not isinstance(tree, dict):
        raise PolicyError(f"{path}: {at or 'the file'} must be a mapping of keys, not {type(tree).__name__}")
    for key in tree:
        if known is not None and key not in known:
            name = f"{at}.{key}" if at else key
            raise PolicyError(f"{path}: unknown key {name!r}; known here: {', '.join(sorted(known))}")


def duration(path: Path, key: str, value) -> int:
    """µs of a duration such as 30d, 24h, 10m or 90s."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        raise PolicyError(f"{path}: {key}: {value!r} is no duration such as 7d, 24h, 10m or 90s")
    return int(match[1]) * _UNITS[match[2]] * MICROS_PER_SECOND


def duration_text(micros: int) -> str:
    """The shortest duration text that means ``micros``, a whole number of seconds."""
    unit, size = next((u, s) for u, s in reversed(_UNITS.items()) if micros % (s * MICROS_PER_SECOND) == 0)
    return f"{micros // (size * MICROS_PER_SECOND)}{unit}"
