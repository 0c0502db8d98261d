"""Ad measurement: see README.md."""

import hashlib
import os
from pathlib import Path


def _keep_compiled_kernels() -> None:
    """Gives the compiled kernels a cache of their own for each state of the sources.

    numba takes a cached kernel for current while the file that defines it is unchanged, also when a function that it
    calls in another file is not. After an update that would be old machine code, and wrong counts.
    """
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ["NUMBA_CACHE_DIR"] = str(cache / "ad-measurement" / f"kernels-{digest.hexdigest()[:16]}")


_keep_compiled_kernels()
