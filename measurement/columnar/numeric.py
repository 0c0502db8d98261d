"""A NUMERIC's nine decimals as integers, which is how the machines sum them: int64 units of 10^-9."""

import numpy as np
import pyarrow as pa

TYPE = pa.decimal128(38, 9)
_WORDS = np.dtype([("low", "<i8"), ("high", "<i8")])  # how Arrow stores one, in two's complement


def of_units(units: np.ndarray) -> pa.Array:
    """Decimals of int64 units, none of them NULL."""
    words = np.empty(len(units), _WORDS)
    words["low"], words["high"] = units, units >> 63
    return pa.Array.from_buffers(TYPE, len(units), [None, pa.py_buffer(words)])


def to_units(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) int64. ValueError for a NULL and for what int64 does not hold."""
    if column.null_count:
        raise ValueError("a sum is NULL")
    chunks = [chunk.cast(TYPE) for chunk in column.chunks]
    words = np.concatenate([np.empty(0, _WORDS), *(np.frombuffer(c.buffers()[1], _WORDS, len(c), c.offset * _WORDS.itemsize) for c in chunks)])
    if (words["high"] != words["low"] >> 63).any():
        raise ValueError("a sum is beyond 2^63 units of 10^-9")
    return words["low"].copy()
