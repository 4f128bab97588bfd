"""panacea_nb: the LRS2 data reduction as executed notebooks."""

__version__ = "0.1.0"
