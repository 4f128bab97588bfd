"""Compare the products of two output roots: every FITS file bit-equal, headers equal but for the volatile cards.

python identical.py ROOT OTHER
"""

import sys
from pathlib import Path

from panacea_nb.products.digest import content_digest


def products(root: Path) -> dict[str, str]:
    """Path below the root -> digest, of all FITS products."""
    found = sorted((root / "LRS2").rglob("*.fits"))
    return {path.relative_to(root).as_posix(): content_digest(path) for path in found}


def main() -> int:
    """0 when both hold the same products, and some at all."""
    first, second = (products(Path(argument)) for argument in sys.argv[1:3])
    for name in sorted({*first, *second}):
        if first.get(name) != second.get(name):
            print(f"{name}: {'differs' if name in first and name in second else 'only in one of them'}")
    print(f"{len(first)} and {len(second)} products")
    return 0 if first and first == second else 1


if __name__ == "__main__":
    sys.exit(main())
