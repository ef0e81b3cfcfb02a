"""The SEGMENT API on your own machine: a server for GET and POST /segment, and a client."""

# Named here because both the command line, which must stay light, and the client command use it.
KEY_VARIABLE = "NAPARI_PIXSEG_KEY"

# What the picture of an answer shows. The original API knows the first.
ANSWER_PICTURES = ("recolored", "classes", "regions")
