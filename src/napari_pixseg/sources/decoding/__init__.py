"""Decodes stored data, but never to more than its expected size."""
