"""Loops over colors and pixels, compiled and in plain NumPy."""
