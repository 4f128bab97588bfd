"""Which container image this runs in, for the provenance of what is made here.

An image cannot know its own digest; whoever starts a container says it through the environment.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "PANACEA_NB_IMAGE_DIGEST"
MARKER = Path("/etc/panacea_nb-image")  # written when an image is built
NONE, UNKNOWN = "none", "unknown"
REASON = (
    f"this ran in a container image, and its launcher did not say which: set {VARIABLE} (containers/README.md); without it "
    "nobody can tell later what exactly computed this"
)


def inside() -> bool:
    """Whether this process runs in one of the project's images."""
    return MARKER.is_file()


def digest() -> str:
    """``sha256:...`` as the launcher said it; ``unknown`` in an image whose launcher said nothing, ``none`` outside of any."""
    return os.environ.get(VARIABLE, "").strip() or (UNKNOWN if inside() else NONE)
