"""From the generator's small numbers to texts as wide as real ids: a bijection of 64 bits, so unlike stays unlike."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def mix(number):
    """Scramble one uint64 (the finaliser of splitmix64)."""
    z = np.uint64(number) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def mix_all(numbers, salt):
    """`mix` of every int64 of an array, offset by a uint64 salt -> uint64 array."""
    out = np.empty(numbers.size, np.uint64)
    for i in range(numbers.size):
        out[i] = mix(np.uint64(numbers[i]) + salt)
    return out


def event_ids(keys: np.ndarray, salt: int) -> list[str]:
    """The texts that events' keys become: 32 hexadecimal digits, the first 16 of them `mix(key + salt)`."""
    high = mix_all(keys, np.uint64(salt))
    low = mix_all((high ^ np.uint64(salt)).view(np.int64), np.uint64(0))
    return [f"{a:016x}{b:016x}" for a, b in zip(high.tolist(), low.tolist())]
