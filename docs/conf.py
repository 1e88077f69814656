"""How the documentation is built: `make docs`."""

from __future__ import annotations

import vicinal

project = "vicinal"
author = "the vicinal authors"
copyright = author
release = version = vicinal.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = False

autodoc_member_order = "bysource"
autodoc_typehints = "description"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"vicinal {release}"
