"""Measurements, each with one command; no tests."""
