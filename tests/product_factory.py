"""Small made-up products of an exposure, for the tests of what is written."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from panacea_nb.instrument import channel, fplane
from panacea_nb.products.headers import provenance_cards, time_and_place
from panacea_nb.products.science import ExposureProducts
from panacea_nb.reduce.astrometry import pointing, sky_positions
from panacea_nb.reduce.cube import spaxel_grid

NF, NW, NY, NX = 280, 64, 90, 48
START = datetime(2025, 1, 15, 6, 0, tzinfo=UTC)
RAW = [
    ("DATE", "2025-01-15T06:00:00", "start of the exposure"),
    ("OBJECT", "HZ_44_056_E", ""),
    ("EXPTIME", -1.0, "as the controller wrote it"),
    ("QRA", "13:23:35.3", ""),
    ("QDEC", "+36:07:59", ""),
    ("PARANGLE", 70.0, ""),
    ("QOBJECT", "HZ_44", ""),
]


def products(convention: str = "lrs2multi") -> ExposureProducts:
    """Every array different, so that a swapped extension shows."""
    rng = np.random.default_rng(500)
    facts = channel("orange")
    ifu = facts.fiber_positions()
    point = pointing(
        {"QRA": "13:23:35.3", "QDEC": "+36:07:59", "TRAJRA": 200.9, "TRAJDEC": 36.13, "PARANGLE": 70.0}, convention
    )
    centre = fplane("056")
    grid = np.linspace(facts.wave_min, facts.wave_max, NW)
    sky = rng.uniform(1e-17, 2e-17, (NF, NW))
    skysub = rng.normal(0, 1e-18, (NF, NW))
    spaxels = spaxel_grid(ifu)
    error = rng.uniform(1e-18, 2e-18, (NF, NW))
    error[7] = 0.0
    made = ExposureProducts(
        grid=grid,
        observed=sky + skysub,
        sky=sky,
        skysub=skysub,
        error=error,
        dq=rng.integers(0, 2, (NF, NW)).astype(np.uint8),
        positions=sky_positions(ifu, centre, point),
        spectrum=np.vstack([grid, *(rng.uniform(1, 2, (5, NW)) * 1e-16)]),
        adr=rng.normal(size=(3, 11)),
        bigw=rng.uniform(4600, 7000, (NY, NX)),
        image=rng.normal(0, 3, (NY, NX)),
        flattened=rng.normal(0, 4, (NY, NX)),
        trace=rng.integers(0, NF + 1, (NY, NX)),
        cosmics=rng.uniform(size=(NY, NX)) > 0.99,
        unrectified=rng.normal(size=(NF, NX)),
        collapsed=rng.normal(size=(spaxels.y.size, spaxels.x.size)),
        spaxels=spaxels,
        lsf=rng.uniform(1, 2, (NF, NW)),
        correlation=np.array([0.18, -0.11, 0.02]),
        pointing=point,
        ifu_centre=centre,
        raw=list(RAW),
    )
    made.cards = [("EXPTIME", 300.0, "[s] used"), ("CHANNEL", "orange", ""), ("SOURCEX", 0.25, "[arcsec]")]
    made.cards += time_and_place(START, 300.0, point)
    made.cards += provenance_cards("07_flux", "LRS2/X/notebooks/y/07_flux.ipynb", [], {"raw LL": "ab" * 32}, {"a": 1.5})
    return made
