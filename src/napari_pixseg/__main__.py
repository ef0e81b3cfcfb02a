"""``python -m napari_pixseg``: the command line."""

from napari_pixseg.cli import program

program()
