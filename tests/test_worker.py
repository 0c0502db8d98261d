"""How Beam's workers are set in the engine's own process."""

import inspect

from apache_beam.runners.worker.statesampler import StateSampler

from measurement.transforms import worker


def test_bundles_end_without_waiting_for_a_sampler_that_sleeps_long(monkeypatch):
    monkeypatch.setattr(StateSampler.__init__, "__defaults__", StateSampler.__init__.__defaults__)  # as it was, when this ends
    worker.sample_often()
    worker.sample_often()
    # Another Beam may have another way: then this is to be looked at again, and benchmarks/latency.py with it.
    assert inspect.signature(StateSampler.__init__).parameters["sampling_period_ms"].default == worker.SAMPLING_PERIOD_MS
