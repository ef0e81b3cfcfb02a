"""The SEGMENT API on your own machine: a server for GET and POST /segment, and a client."""

# Defined here because both the command line, which must load fast, and the client command use it.
KEY_VARIABLE = "NAPARI_PIXSEG_KEY"

# The possible content of an answer's picture. The original API has only the first.
ANSWER_PICTURES = ("recolored", "classes", "regions")
