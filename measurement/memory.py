"""Memory of a process that goes through batch after batch.

- *The allocator.* Batches are arrays of megabytes, and glibc gives those back to the kernel as they are freed, to be zeroed
  page by page for the next.
- *The collector of cycles* goes through all that the imports made, again and again; batches make no cycles.
"""

import ctypes
import gc
import platform

# By glibc's name in the environment: its number in malloc.h and the value, bytes but for the arenas.
_SETTINGS = {"MALLOC_TRIM_THRESHOLD_": (-1, 1 << 30), "MALLOC_TOP_PAD_": (-2, 1 << 26),
             "MALLOC_MMAP_THRESHOLD_": (-3, 1 << 30), "MALLOC_ARENA_MAX": (-8, 1)}
_YOUNG = 50_000  # objects
# The same for a process that is started. An arena of its own for each thread, which are many before `keep` can say no, gives
# back each 64 MB at once, whatever else is said.
ENVIRONMENT = {name: str(value) for name, (_, value) in _SETTINGS.items()}


def keep() -> None:
    """Before the first batch, behind the imports."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in _SETTINGS.values():
            libc.mallopt(option, value)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
