"""Revisions: generation * 2^32 + n, below 2^53 (contract section 3).

n is time since the generation began, in ticks, or the row's last n and one if that is more. A worker that comes back with
older state thus numbers what it publishes above all that it had published before it failed, whatever its state knew.
"""

GENERATION_BITS = 32
GENERATIONS = 1 << (53 - GENERATION_BITS)
TICK_MICROS = 50_000  # 2^32 ticks are 6.8 years


def revision(generation: int, n: int) -> int:
    """ValueError where the number would leave its range."""
    if not 0 < generation < GENERATIONS or not 0 <= n < 1 << GENERATION_BITS:
        raise ValueError(f"revision {n} of generation {generation} is out of range")
    return (generation << GENERATION_BITS) + n


def tick(now: int, began: int) -> int:
    """n at ``now`` (µs) of a generation that began then (µs)."""
    return max(0, (now - began) // TICK_MICROS)
