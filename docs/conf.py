"""How the documentation is built: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import vicinal

sys.path.insert(0, str(Path(__file__).parent))
import _generate
import _markup

project = "vicinal"
author = "the vicinal authors"
copyright = author
release = version = vicinal.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_*.md", "methods/_*.md"]
nitpicky = False
smartquotes = False  # or --flag in a note becomes a dash

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
default_role = "py:obj"
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"vicinal {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sphinx = False
pygments_style = "friendly"


def _readable(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = _markup.to_rest(lines)


def _left_out(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Nothing is said by what others generate: a named tuple's fields, scikit-learn's requests for metadata."""
    generated = (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")
    return True if generated or (name.startswith("set_") and name.endswith("_request")) else None


def setup(app: Any) -> None:
    # Generated pages are written before Sphinx looks for pages; docstrings are mended before napoleon reads them.
    app.connect("builder-inited", lambda app: _generate.write(), priority=1)
    app.connect("autodoc-process-docstring", _readable, priority=1)
    app.connect("autodoc-skip-member", _left_out)
