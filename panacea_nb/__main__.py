"""``python -m panacea_nb`` is the same as the command ``panacea-nb``."""

import sys

from .cli import main

sys.exit(main())
