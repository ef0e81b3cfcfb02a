"""Opening what can be segmented, and reading any part of it."""
