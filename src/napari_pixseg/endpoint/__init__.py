"""The SEGMENT API on one's own machine: GET and POST /segment, and a client for it."""
