"""What a process sets for itself in which workers run beside the engine's client.

Beam's worker has a thread look at what a bundle is doing, ever more rarely and in the end every 200 ms, and joins it when the
bundle's work is done (apache_beam/runners/worker/statesampler_fast.pyx, `stop`, in Beam 2.77). So a bundle answers up to 200 ms
after all that it has made, which nobody may have before; and Prism's loop around the bundle spins meanwhile, since all of its
outputs have come. There is no option for the period.
"""

from apache_beam.runners.worker.statesampler import DEFAULT_SAMPLING_PERIOD_MS, StateSampler

from measurement import memory

SAMPLING_PERIOD_MS = 5


def settle() -> None:
    """Before the first bundle, behind the imports."""
    sample_often()
    memory.keep()


def sample_often() -> None:
    if StateSampler.__init__.__defaults__ == (DEFAULT_SAMPLING_PERIOD_MS,):  # another Beam may have come to need none of this
        StateSampler.__init__.__defaults__ = (SAMPLING_PERIOD_MS,)
