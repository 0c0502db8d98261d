"""Memory of a process that goes through batch after batch.

- *The allocator.* Batches are arrays of megabytes, and glibc gives those back to the kernel as they are freed, to be zeroed
  page by page for the next.
- *The collector of cycles* goes through all that the imports made, again and again; batches make no cycles.
"""

import ctypes
import gc
import platform

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8  # malloc.h
_KEPT_BYTES, _STEP_BYTES = 1 << 30, 1 << 26
_YOUNG = 50_000  # objects
# The same for a process that is started. An arena of its own for each thread, which are many before `keep` can say no, gives
# back each 64 MB at once, whatever else is said.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(_KEPT_BYTES), "MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES),
               "MALLOC_TOP_PAD_": str(_STEP_BYTES), "MALLOC_ARENA_MAX": "1"}


def keep() -> None:
    """Before the first batch, behind the imports."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in ((_M_MMAP_THRESHOLD, _KEPT_BYTES), (_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_TOP_PAD, _STEP_BYTES),
                              (_M_ARENA_MAX, 1)):
            libc.mallopt(option, value)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
