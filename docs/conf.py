"""Sphinx configuration: ``sphinx-build -W -b html docs build/docs``."""

from musichal import __version__

project = "MusicHal"
author = "The MusicHal founders"
copyright = "2026, " + author
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = f"MusicHal {release}"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
suppress_warnings = ["config.cache"]
