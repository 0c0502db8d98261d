"""Which shard a key belongs to: by the upper bits of its fingerprint, since the low ones choose slots in a shard's tables."""

import numpy as np

SHIFT = 40


def shard_of(hi: np.ndarray, shards: int) -> np.ndarray:
    """The shards (uint64) of fingerprints' upper halves."""
    return (hi >> np.uint64(SHIFT)) % np.uint64(shards)


def parted(shard: np.ndarray, shards: int) -> list[tuple[int, np.ndarray]]:
    """(shard, places of its rows in order) for each shard that has any; ``shard``: of each row."""
    found = ((s, np.flatnonzero(shard == s)) for s in range(shards))
    return [(s, at) for s, at in found if len(at)]
