"""What a process sets for itself in which workers run beside the engine's client: three defaults cost a batch job more than
its own work.

- *The state sampler.* Beam's worker has a thread look at what a bundle is doing, ever more rarely and in the end every
  200 ms, and joins it when the bundle's work is done (apache_beam/runners/worker/statesampler_fast.pyx, `stop`, in Beam 2.77).
  So a bundle answers up to 200 ms after all that it has made, which nobody may have before; and Prism's loop around the
  bundle spins meanwhile, since all of its outputs have come. There is no option for the period.
- *The allocator.* Batches are arrays of megabytes, and glibc gives those back to the kernel as they are freed, to be zeroed
  page by page for the next.
- *The collector of cycles* goes through all that the imports made, again and again; batches make no cycles.
"""

import ctypes
import gc
import platform

from apache_beam.runners.worker.statesampler import StateSampler

_SAMPLE_MS = 5
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_KEPT_BYTES = 1 << 30
_YOUNG = 50_000  # objects


def settle() -> None:
    """Before the first bundle, behind the imports."""
    StateSampler.__init__.__defaults__ = (_SAMPLE_MS,)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in (_M_MMAP_THRESHOLD, _KEPT_BYTES), (_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_ARENA_MAX, 1):
            libc.mallopt(option, value)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
