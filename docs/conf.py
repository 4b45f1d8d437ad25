"""The documentation as a site (`make docs`); every page is also read as it is in the repository."""

from importlib import metadata

project = "omnistage"
author = "the omnistage authors"
release = version = metadata.version("omnistage")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
# Links such as data.md#formats lead to headings, as they do where markdown is read as it is.
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"omnistage {release}"
html_show_sourcelink = False
# Blocks without a language are commands with their comments.
highlight_language = "text"
