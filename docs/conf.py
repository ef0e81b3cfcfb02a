"""How Sphinx builds these pages: ``make docs``."""

from napari_pixseg import __version__

project = "napari-pixseg"
author = "The napari-pixseg developers"
copyright = "2026, the napari-pixseg developers"
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["jupyter_execute", "**.ipynb_checkpoints"]
html_theme = "furo"
html_title = "napari-pixseg"
html_static_path: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Notebooks are executed by the tests; here their text is enough.
nb_execution_mode = "off"

autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
