"""Random streams that depend on what they are for, not on the order in which work is done."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, *labels: object) -> np.random.Generator:
    """A generator of its own for every combination of seed and labels.

    The same seed and labels give the same numbers in any process and in any order of work, which is what makes a night
    independent of the number of jobs.
    """
    keys = [zlib.crc32(str(label).encode()) for label in labels]
    return np.random.default_rng(np.random.SeedSequence([seed, *keys]))
