"""The physics of the reduction: pure functions, arrays in, dataclasses out; no files, no plots, no globals."""
