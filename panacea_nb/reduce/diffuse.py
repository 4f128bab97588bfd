"""Emission lines of nebulae and of galaxies' outskirts: light that no source's model holds and that is no sky's either.

Such an object may have so little continuum that its fibres pass for sky.  What tells it is that in a few columns the light differs
over the field, from lenslet to neighbouring lenslet alike; the sky's does not.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, maximum_filter1d, uniform_filter1d

from ..decisions import Decision
from .arrays import running_median

WIDTH = 6  # columns of a window, of which the next begins in the middle: a line's full width and a half
BESIDE = 31  # windows, whose median is the continuum under the middle one
LINE_ERROR = 0.03  # of the sky's lines: what their model may be wrong by in a fibre, as along the slit it is alike
SOURCE_ERROR = 0.1  # of a source's light: what its model may be wrong by
SKY_SHARE = 0.15  # of the sky's lines there, that a twentieth of the fibres must have more: airglow has a gradient
# Of the sky, in a fibre: what the model of so bright a source leaves in its wings looks like lines elsewhere.
BRIGHT_SOURCE = 3.0
LEAST_SHARE = 0.02  # of the fibres, that is worth a word
SEEN = 8.0  # sigma by which neighbours agree more than by chance, over some thousand windows
LIT = 2.0  # sigma over the dark fibres, from which a fibre and its neighbours hold light
CLEAR = 4.0  # sigma from which a fibre's own light is surely no noise
DARKEST = 0.3  # of the fibres, with which the search for the dark ones begins
LEAST_DARK = 40  # fibres, that a window of the sky's spectrum needs
OBJECT_SHARE = 0.1  # of the sky, above which the model of an object is no small correction in a sample
FULL = 0.5  # of the fibres lit, from which it is doubtful that any is dark


def lit_samples(
    rest: np.ndarray,
    variance: np.ndarray,
    native: np.ndarray,
    source: np.ndarray,
    good: np.ndarray,
    wavelength: np.ndarray,
    neighbours: np.ndarray,
    known: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Samples (nf, nx) bool that hold lines of a diffuse object, and which windows (n,) these are in.

    Parameters
    ----------
    rest : (nf, nx) [e-], what sky and sources leave; variance : its own
    native, source : (nf, nx) [e-], models of sky and sources
    good : (nf, nx) bool; wavelength : (nf, nx) [A]
    neighbours : (nf, 6), see `cosmics.field_neighbours`
    known : (n,) bool, windows that were found before, when the sky had taken some of their light
    """
    alive = good.any(axis=1)
    centre = np.median(wavelength[alive], axis=0)
    n = 2 * (centre.size // WIDTH) - 1
    if (source[alive].sum(axis=1) > BRIGHT_SOURCE * native[alive].sum(axis=1)).any():
        return np.zeros(rest.shape, bool), np.zeros(n, bool)
    # Where in each fibre the windows begin: wavelengths differ by some columns along the slit.
    starts = centre[np.minimum(np.arange(n) * WIDTH // 2, centre.size - 1)]
    first = np.stack([np.searchsorted(row, starts) for row in wavelength])
    last = np.minimum(first + WIDTH, centre.size)
    lines = _lines_of(native)
    doubt = variance + (LINE_ERROR * lines) ** 2 + (SOURCE_ERROR * source) ** 2
    noise = _window_sums(np.where(good, doubt, 0.0), first, last)
    use = (_window_sums(good.astype(float), first, last) > 0.7 * WIDTH) & (noise > 0)

    def significance(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lines in each fibre's windows (nf, n) [sigma], and the sum of those of its neighbours."""
        z = np.where(use, _window_sums(np.where(good, values, 0.0), first, last) / np.sqrt(np.where(use, noise, 1.0)), 0.0)
        z = np.where(use, z - running_median(z, BESIDE), 0.0)
        return z, np.where(neighbours[:, :, None] >= 0, z[neighbours], 0.0).sum(axis=1)

    z, near = significance(rest)
    around = np.where(neighbours[:, :, None] >= 0, use[neighbours], False).sum(axis=1)
    clear = np.clip(z, -5.0, 5.0)  # a cosmic ray that was left makes no nebula
    together = (clear * np.where(around > 0, near / np.sqrt(np.maximum(around, 1)), 0.0)).sum(axis=0)
    together /= np.sqrt(np.maximum(use.sum(axis=0), 1))
    usual = float(np.median(together))
    scatter = max(1.0, 1.4826 * float(np.median(np.abs(together - usual))))
    # Wings of a line reach into the windows beside its own.
    glow = maximum_filter1d(np.median(_window_sums(lines, first, last)[alive], axis=0), 5)
    brightest = np.percentile(np.where(use, z * np.sqrt(np.where(use, noise, 0.0)), 0.0)[alive], 95, axis=0)
    windows = (together - usual > SEEN * scatter) & (brightest > SKY_SHARE * glow)
    if known is not None:
        windows |= known
    lit = np.zeros(rest.shape, bool)
    if not windows.any():
        return lit, windows
    # A source's light counts here: where its model has too much, nothing is left that tells a fibre full of lines from the sky.
    if source.any():
        z, near = significance(rest + source)
    # Beside a window with a line there is the rest of it.
    some = np.flatnonzero(binary_dilation(windows))
    # Chosen by its own noise, the sky would be too dark: a fibre's neighbours say whether it is, unless its own light does surely.
    smooth = np.where(z > CLEAR, z, near / np.sqrt(np.maximum(around, 1)))[:, some]
    for k, b in enumerate(some):
        holds = use[:, b] & ~_dark(smooth[:, k], use[:, b])
        for f in np.flatnonzero(holds):
            lit[f, first[f, b] : last[f, b]] = True
    return lit, windows


def lines_of_object(source: np.ndarray, native: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Samples (nf, nx) bool in which an extended object's model has so much light that they are no sky, where others are.

    A fibre that holds little of an object's continuum may hold more of its lines than of the sky, and so of the model's errors.

    Parameters
    ----------
    source, native : (nf, nx) [e-], models of the object and of the sky; good : (nf, nx) bool
    """
    bright = source > OBJECT_SHARE * native
    left = uniform_filter1d((good & ~bright).sum(axis=0).astype(float), WIDTH)
    return bright & (left > LEAST_DARK)


def _dark(level: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Fibres (nf,) bool with as little light in a window as the darkest have; ``level`` in sigma of what noise makes of it."""
    dark = (
        use & (level <= np.sort(level[use])[max(LEAST_DARK, int(DARKEST * use.sum())) - 1])
        if use.sum() > LEAST_DARK
        else use
    )
    for _ in range(10):
        new = use & (level < np.median(level[dark]) + LIT)
        if new.sum() < LEAST_DARK or (new == dark).all():
            break
        dark = new
    return dark


def _window_sums(values: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Sums of each fibre's columns ``first`` .. ``last`` (nf, n)."""
    total = np.pad(np.cumsum(values, axis=1, dtype=float), ((0, 0), (1, 0)))
    return np.take_along_axis(total, last, axis=1) - np.take_along_axis(total, first, axis=1)


def _lines_of(native: np.ndarray) -> np.ndarray:
    """The sky's light (nf, nx) above its continuum."""
    step = WIDTH  # the continuum changes slowly: every sixth column tells it
    part = running_median(native[:, ::step], BESIDE)
    return np.maximum(native - np.repeat(part, step, axis=1)[:, : native.shape[1]], 0.0)


def diffuse_decision(lit: np.ndarray, windows: np.ndarray, wavelength: np.ndarray, alive: np.ndarray) -> list[Decision]:
    """What is said of lines that are not the sky's; nothing where in the end the sources' models hold them."""
    centre = np.median(wavelength[alive], axis=0)
    at = np.minimum(np.flatnonzero(windows) * WIDTH // 2 + WIDTH // 2, centre.size - 1)
    groups = np.split(at, np.flatnonzero(np.diff(at) > 2 * WIDTH) + 1) if at.size else []
    columns = [int(np.mean(g)) for g in groups]
    shares = {column: float(lit[alive][:, column].mean()) for column in columns}
    shares = {column: share for column, share in shares.items() if share > LEAST_SHARE}
    if not shares:
        return []
    waves = ", ".join(f"{centre[column]:.0f}" for column in list(shares)[:8]) + (", ..." if len(shares) > 8 else "")
    share = float(np.median(list(shares.values())))
    text = (
        f"emission at {waves} A that differs over the field, in {100 * share:.0f} % of the fibres: a nebula or an object's "
        "outskirts. There the sky is that of the other fibres"
    )
    if share > FULL:
        text += "; light that fills the whole field is lost with it: give the sky with --sky_region, --sky_mask or --sky_obsid"
    return [Decision("DIFFUSE", text, "warn" if share > FULL else "info")]
