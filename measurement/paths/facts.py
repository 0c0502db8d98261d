"""What attribution over paths is computed from: the valid touches and conversions of all advertisers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Facts:
    """n valid touches and c valid conversions, in any order; screened, joined and deduplicated already.

    Users and impressions are fingerprints of 128 bits, equal where the user (of an advertiser) or the impression is. A
    click's impression is the one that it is joined to. Codes are positions in the lists of texts.
    """

    advertisers: list[str]
    channels: list[str | None]  # campaign ids
    currencies: list[str | None]
    touch_user: np.ndarray  # uint64 (n, 2); (0, 0) where it has no user, and then it is nobody's touch
    touch_advertiser: np.ndarray  # int32 (n,)
    touch_channel: np.ndarray  # int32 (n,)
    touch_time: np.ndarray  # int64 (n,), µs
    touch_is_click: np.ndarray  # bool (n,)
    touch_impression: np.ndarray  # uint64 (n, 2)
    touch_id: Sequence[str]  # n event ids, or an object array (n,)
    conversion_user: np.ndarray  # uint64 (c, 2); (0, 0) where it has no user
    conversion_advertiser: np.ndarray  # int32 (c,)
    conversion_time: np.ndarray  # int64 (c,), µs
    conversion_value: np.ndarray  # int64 (c,), micros, not negative; 0 where it has none
    conversion_currency: np.ndarray  # int32 (c,)
