"""The 22 color spaces, forward and inverse, on 16-bit samples."""
