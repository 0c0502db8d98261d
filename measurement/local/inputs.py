"""Which files a run reads: found, checked whole, named, and held against what the warehouse was made from before."""

import glob
import hashlib
from dataclasses import dataclass
from pathlib import Path

from measurement.io.framing import SUFFIXES, UnreadableInput, WriterSchema, verify

_CHUNK = 1 << 20


class BadInputs(ValueError):
    """Inputs that cannot be run; the message is one line."""


@dataclass(frozen=True)
class Source:
    """An input as the warehouse remembers it: its name in the tables, size, SHA-256, and reader's clock (µs)."""

    name: str
    path: str
    size: int
    sha256: str
    clock: int
    replay: bool = False


def find(patterns: list[str]) -> list[Path]:
    """The files that directories, names and globs stand for, each once; BadInputs where one stands for none."""
    found: dict[Path, Path] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.name.endswith(SUFFIXES) and not p.name.startswith("."))
        elif path.exists():
            files = [path]
        else:
            files = [p for p in map(Path, sorted(glob.glob(pattern, recursive=True))) if p.is_file()]
        if not files:
            raise BadInputs(f"--input {pattern}: no input files ({', '.join(SUFFIXES)}) there")
        found.update((p.resolve(), p) for p in files)
    return list(found.values())


def check(files: list[Path]) -> dict[str, str]:
    """Every file's frame from end to end; the texts of the writers' schemas by id. BadInputs for the first bad one."""
    schemas: dict[str, str] = {}
    for path in files:
        try:
            schema = verify(path)
        except UnreadableInput as error:
            raise BadInputs(str(error)) from error
        if isinstance(schema, WriterSchema):
            schemas[schema.id] = schema.text
    return schemas


def match(files: list[Path], earlier: list[Source], now: int) -> list[Source]:
    """Names and clocks for the files: an earlier input keeps its own, also if the file has grown since.

    BadInputs if an earlier input is not among the files: a state that has not seen it would restate its hours wrongly
    (contract section 3).
    """
    sizes = sorted({s.size for s in earlier})
    digests = {path: _digests(path, sizes) for path in files}
    kept: dict[Path, Source] = {}
    for source in earlier:
        same = [p for p in files if p not in kept and digests[p].get(source.size) == source.sha256]
        if not same:
            raise BadInputs(f"--out was made from {source.path} too, which is not among the inputs as it was: without it its "
                            "hours would be restated wrongly; give it as well, or another --out")
        best = next((p for p in same if p.name == source.name), same[0])
        kept[best] = source
    taken = {s.name for s in kept.values()}
    result = []
    for path in files:
        size, digest = digests[path][None]
        if path in kept:
            name, clock = kept[path].name, kept[path].clock
        else:
            name, clock = _name(path, taken), now
            taken.add(name)
        result.append(Source(name, str(path.resolve()), size, digest, clock))
    return result


def _digests(path: Path, sizes: list[int]) -> dict:
    """SHA-256 of the file's first n bytes for each of ``sizes`` it has, and under None (size, SHA-256) of the whole."""
    digest, read, out, wanted = hashlib.sha256(), 0, {}, list(sizes)
    try:
        with path.open("rb") as file:
            while wanted and wanted[0] == 0:
                out[wanted.pop(0)] = digest.hexdigest()
            while chunk := file.read(min(_CHUNK, wanted[0] - read) if wanted else _CHUNK):
                digest.update(chunk)
                read += len(chunk)
                if wanted and read == wanted[0]:
                    out[wanted.pop(0)] = digest.hexdigest()
    except OSError as error:
        raise BadInputs(f"{path}: {error.strerror}") from error
    return {**out, None: (read, digest.hexdigest())}


def _name(path: Path, taken: set[str]) -> str:
    """The file's name, with as much of its path before it as tells it from the others."""
    parts = path.resolve().parts
    for n in range(1, len(parts) + 1):
        name = "/".join(parts[-n:]).lstrip("/")
        if name not in taken:
            return name
    raise BadInputs(f"{path}: given twice")
