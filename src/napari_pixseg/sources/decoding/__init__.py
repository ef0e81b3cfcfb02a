"""Decoding what is stored, and no further than it should open to."""
