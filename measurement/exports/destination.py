"""Where exports go: a directory, or an object store through fsspec. A name there holds a whole file or none.

A directory's file is written beside its name, synced and renamed. An object store has no renaming; an object is there when its
upload has ended. Which files belong together the manifest says, which comes last: before any of them is replaced the old one goes.
"""

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from measurement.exports.manifest import ENDING, text
from measurement.failure import Failure

_CHUNK = 1 << 20
_UMASK = threading.Lock()


class Destination(Protocol):
    """Names are DIRECTORY/NAME. Failure where something cannot be written or read."""

    def put(self, name: str, file: Path) -> None: ...

    def get(self, name: str) -> bytes | None:
        """None where there is no such file."""

    def sha256(self, name: str) -> str | None: ...

    def remove(self, name: str) -> None:
        """Also where there is none."""


def of(out: str) -> Destination:
    """``out``: a directory, file://DIRECTORY, or a URL of a store that fsspec knows."""
    if out.startswith("file://"):
        out = out.removeprefix("file://")
    return _Store(out) if "://" in out else _Directory(Path(out))


def put_export(to: Destination, files: dict[str, Path], manifest: dict) -> None:
    """Files and, when they are there, their manifest."""
    name = manifest["files"]["rows"]["name"] + ENDING
    to.remove(name)
    for each, file in files.items():
        to.put(each, file)
    with tempfile.TemporaryDirectory() as scratch:
        last = Path(scratch, "manifest")
        last.write_bytes(text(manifest))
        to.put(name, last)


def whole(to: Destination, manifest: dict) -> bool:
    """Whether the files that a manifest names are there as it says."""
    return all(to.sha256(file["name"]) == file["sha256"] for file in manifest["files"].values())


class _Directory:
    def __init__(self, root: Path):
        self._root = root

    def put(self, name: str, file: Path) -> None:
        path = self._root / name
        with self._told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
            try:
                with open(handle, "wb") as into, file.open("rb") as given:
                    shutil.copyfileobj(given, into, _CHUNK)
                    into.flush()
                    os.fchmod(into.fileno(), 0o666 & ~_umask())
                    os.fsync(into.fileno())
                os.replace(part, path)
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise
            _sync(path.parent)

    def get(self, name: str) -> bytes | None:
        path = self._root / name
        with self._told(path):
            return path.read_bytes() if path.is_file() else None

    def sha256(self, name: str) -> str | None:
        path = self._root / name
        with self._told(path):
            if not path.is_file():
                return None
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()

    def remove(self, name: str) -> None:
        path = self._root / name
        with self._told(path):
            if path.exists():
                path.unlink()
                _sync(path.parent)

    @contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Failure(f"--out {self._root}: {error.filename or path}: {error.strerror or error}") from error


class _Store:
    def __init__(self, url: str):
        import fsspec

        self._url = url.rstrip("/")
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self._url)
        except ImportError as error:
            raise Failure(f"--out {url}: {error}; for gs:// `pip install ad-measurement[gcs]`") from error
        except ValueError as error:
            raise Failure(f"--out {url}: {error}") from error

    def put(self, name: str, file: Path) -> None:
        with self._told(name):
            self._fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(file), self._path(name))

    def get(self, name: str) -> bytes | None:
        with self._told(name):
            try:
                return self._fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None

    def sha256(self, name: str) -> str | None:
        digest = hashlib.sha256()
        with self._told(name):
            try:
                with self._fs.open(self._path(name), "rb") as file:
                    while chunk := file.read(_CHUNK):
                        digest.update(chunk)
            except FileNotFoundError:
                return None
        return digest.hexdigest()

    def remove(self, name: str) -> None:
        with self._told(name):
            try:
                self._fs.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Failure(f"--out {self._url}/{name}: {' '.join(str(error).split())}") from error


def _sync(directory: Path) -> None:
    """A name in a directory is there after a power cut only when the directory is on disk too."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """It can only be read by being set: two threads that did so at once would leave it at 0."""
    with _UMASK:
        mask = os.umask(0)
        os.umask(mask)
    return mask
