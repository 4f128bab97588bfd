"""Arrays as compiled code expects them."""

from __future__ import annotations

import numpy as np


def plain(array: np.ndarray, dtype: type) -> np.ndarray:
    """The array with one type, row by row in memory, and writable; a copy only where it is not so already.

    Anything else would be compiled anew, for some seconds in the middle of a reduction.
    """
    return np.require(array, dtype, ("C", "W"))
