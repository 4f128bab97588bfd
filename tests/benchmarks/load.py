"""CPU seconds of a fixed load on one thread: the unit in which run times of different machines and hours are compared."""

from __future__ import annotations

import time

import numpy as np

SIZE = 2064
REPEATS = 5


def reference_load() -> float:
    """CPU time [s] of one load: median, sort, exp, arithmetic and a Fourier transform of 2064 x 2064 doubles; median of five.

    The caller sees to it that numpy's libraries use one thread.
    """
    image = np.random.default_rng(0).normal(size=(SIZE, SIZE))
    half = SIZE // 2
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        np.median(image, axis=0)
        np.sort(image, axis=1)
        np.exp(-0.5 * image**2).sum()
        (image[:half] * image[half:] / (1 + image[:half] ** 2)).cumsum(axis=1)
        np.fft.rfft2(image)
        seconds.append(time.process_time() - start)
    return float(np.median(seconds))
