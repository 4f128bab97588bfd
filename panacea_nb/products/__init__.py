"""FITS in and out: where products lie, how they are written, what their headers say."""
