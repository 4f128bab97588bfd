"""The physics of the reduction: pure functions, arrays in, dataclasses out; no files, no plots, no globals."""

from .. import jit

jit.use_shipped()  # here, before any room of it compiles
