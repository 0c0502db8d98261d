"""Keys of the report API: made, listed, revoked, and looked up. A file of JSON, replaced as a whole.

A key is ``adm_ID_SECRET``: the id finds its entry, the secret is 256 random bits. The file has the SHA-256 of the whole key and
nothing more: a slow, salted hash is for what people think up, while nobody tries out 2^256, and each request would pay for it.
"""

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import orjson

from measurement.failure import Failure
from measurement.serving.reports import is_probe

KEY = re.compile(r"adm_([0-9a-f]{16})_[A-Za-z0-9_-]{43}", re.ASCII)
_VERSION = 1
_LOOK_SECONDS = 0.5  # at most so often the file is looked at for changes


class KeysUnreadable(Exception):
    """The key file is not there or is none. The message is one line."""


@dataclass(frozen=True)
class Key:
    """``advertiser_id`` None: of sales, for all advertisers. Times are seconds since 1970."""

    id: str
    sha256: str
    advertiser_id: str | None
    name: str
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None

    @property
    def sales(self) -> bool:
        return self.advertiser_id is None

    def state(self, now: float) -> str:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "valid"


class KeyFile:
    """What `measurement keys` does. Failure names the flag."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time):
        self._path, self._now = path, now

    def make(self, advertiser_id: str | None, name: str = "", expires_at: int | None = None) -> tuple[Key, str]:
        """The new entry and the key itself, which is nowhere else. ``advertiser_id`` None makes one of sales."""
        if advertiser_id is not None and (not advertiser_id or is_probe(advertiser_id)):
            raise Failure(f"--advertiser {advertiser_id!r}: not an advertiser's id")
        if expires_at is not None and expires_at <= self._now():
            raise Failure("--expires: is in the past")
        id_ = secrets.token_hex(8)
        text = f"adm_{id_}_{secrets.token_urlsafe(32)}"
        key = Key(id_, _hash(text), advertiser_id, name, int(self._now()), expires_at)
        with self._changing() as keys:
            keys.append(key)
        return key, text

    def all(self) -> list[Key]:
        try:
            return _read(self._path)
        except KeysUnreadable as error:
            raise Failure(f"--keys {error}") from error

    def revoke(self, id_: str) -> Key:
        """The entry, which stays in the file. Revoked once more it keeps its first time."""
        with self._changing() as keys:
            at = next((i for i, key in enumerate(keys) if key.id == id_), None)
            if at is None:
                raise Failure(f"{id_!r}: no key of this id in {self._path}")
            keys[at] = replace(keys[at], revoked_at=keys[at].revoked_at or int(self._now()))
            return keys[at]

    @contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        """The keys, written back as they are at the end; one at a time changes the file."""
        try:
            with self._path.with_name(f".{self._path.name}.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                keys = self.all() if self._path.exists() else []
                yield keys
                _write(self._path, keys)
        except OSError as error:
            raise Failure(f"--keys {self._path}: {error.strerror or error}") from error


class KeyRing:
    """The keys of a file as they are now. For several threads."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time, clock: Callable[[], float] = time.monotonic):
        self._path, self._now, self._clock = path, now, clock
        self._lock = threading.Lock()
        self._looked: float | None = None
        self._seen: tuple | None = None
        self._keys: dict[str, Key] = {}

    def find(self, text: str) -> Key | None:
        """The valid key of that text. KeysUnreadable where the file is: no key holds that nobody can revoke."""
        match = KEY.fullmatch(text)
        if match is None:
            return None
        key = self._current().get(match[1])
        if key is None or not hmac.compare_digest(key.sha256, _hash(text)):
            return None
        return key if key.state(self._now()) == "valid" else None

    def check(self) -> None:
        """KeysUnreadable as above."""
        self._current()

    def _current(self) -> dict[str, Key]:
        with self._lock:
            if self._looked is None or self._clock() - self._looked >= _LOOK_SECONDS:
                try:
                    stat = self._path.stat()
                except OSError as error:
                    raise KeysUnreadable(f"{self._path}: {error.strerror}") from error
                seen = stat.st_ino, stat.st_mtime_ns, stat.st_size
                if seen != self._seen:
                    self._keys = {key.id: key for key in _read(self._path)}
                self._seen, self._looked = seen, self._clock()
            return self._keys


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> list[Key]:
    try:
        tree = orjson.loads(path.read_bytes())
        if tree["version"] != _VERSION:
            raise KeysUnreadable(f"{path}: of version {tree['version']!r}, which this program cannot read")
        return [_key(**entry) for entry in tree["keys"]]
    except OSError as error:
        raise KeysUnreadable(f"{path}: {error.strerror}") from error
    except (orjson.JSONDecodeError, TypeError, KeyError, ValueError) as error:
        raise KeysUnreadable(f"{path}: not a file of keys") from error


def _key(**entry) -> Key:
    """ValueError, TypeError or KeyError for what is no entry: an entry without its advertiser must not pass for one of sales."""
    if set(entry) != {f.name for f in fields(Key)} - {"advertiser_id"} | {"owner"}:
        raise ValueError("not the fields of a key")
    owner = entry.pop("owner")
    if owner != {"sales": True} and not (set(owner) == {"advertiser_id"} and isinstance(owner["advertiser_id"], str)):
        raise ValueError("owner")
    return Key(**entry, advertiser_id=owner.get("advertiser_id"))


def _entry(key: Key) -> dict:
    entry = asdict(key)
    advertiser = entry.pop("advertiser_id")
    return entry | {"owner": {"sales": True} if advertiser is None else {"advertiser_id": advertiser}}


def _write(path: Path, keys: list[Key]) -> None:
    """At once and for the owner alone: mkstemp makes files of mode 0600."""
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(orjson.dumps({"version": _VERSION, "keys": [_entry(k) for k in keys]}, option=orjson.OPT_INDENT_2))
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise
