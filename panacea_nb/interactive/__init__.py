"""Interactive reduction: the panels of notebooks/interactive_*.ipynb, and the choices that they write.

What a panel shows is computed by the functions that the notebooks of the stages call, with the parameters that
`panacea-nb reduce --config choices.yaml` would give them: both come to the same arrays, bit by bit.  For that, linear algebra
must run in one thread here as it does there, which has to be said before numpy is first imported.
"""

from __future__ import annotations

import os
import sys

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

if "numpy" not in sys.modules:
    os.environ.update(dict.fromkeys(THREADS, "1"))


def single_threaded() -> bool:
    """Whether numpy was imported with one thread, so that sums come out as they do in a reduction."""
    return all(os.environ.get(name) == "1" for name in THREADS[:2])
