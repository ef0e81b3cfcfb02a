"""``python -m napari_pixseg``: the command line."""

import sys

from napari_pixseg.cli import main

sys.exit(main())
