"""How the documentation is built: `make docs`."""

from __future__ import annotations

from pathlib import Path

import vicinal
from vicinal.cli.explain import method_table

project = "vicinal"
author = "the vicinal authors"
copyright = author
release = version = vicinal.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_methods.md"]
# Read off the methods themselves, so that the page cannot fall behind them.
Path(__file__).with_name("_methods.md").write_text(method_table(), encoding="utf-8")
nitpicky = False

autodoc_member_order = "bysource"
autodoc_typehints = "description"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"vicinal {release}"
