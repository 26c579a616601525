"""An HTML page with everything in it: no network, no script, no font of its own.

Every text from outside, such as the name of a recording, is escaped, and the page forbids itself to load anything.
"""

import base64
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from musichal.plots.canvas import figure_bytes
from musichal.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; }
body { max-width: 1200px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; margin-bottom: 0; }
h2 { font-size: 1.2em; margin: 2em 0 0.2em; border-top: 1px solid #e4e4e4; padding-top: 1em; }
p { margin: 0.3em 0 0.8em; color: #555; }
code { font-size: 0.9em; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin-bottom: 1.2em; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.3em 0.7em 0.3em 0; border-bottom: 1px solid #e4e4e4; }
th { font-weight: 600; color: #555; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.passed { color: #00694d; font-weight: 600; }
td.failed { color: #a83f00; font-weight: 700; }
td.told { color: #666; }
tr.failed { background: #fdf0e8; }
.verdict { font-size: 1.2em; font-weight: 600; padding: 0.5em 0.8em; border-radius: 4px; color: #fff; }
.verdict.passed { background: #007a5a; }
.verdict.failed { background: #b34700; }
small { color: #666; display: block; }
small.cause { color: #a83f00; }
img { max-width: 100%; height: auto; margin: 0.8em 0; }
@media print { body { margin: 0; max-width: none; } h2, tr, img { break-inside: avoid; } }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, body: Sequence[str]) -> str:
    """Return a page as text: `title`, escaped already, and the parts of its body, which are HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def escaped(text: str) -> str:
    """Return a text from outside as HTML: escaped, without control characters."""
    return escape(printable(text))


def table(head: str, rows: Sequence[str]) -> str:
    """Return a table that scrolls by itself where it is too wide; `head` holds cells, `rows` whole rows, both HTML."""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n' + "\n".join(rows) + "\n</tbody></table></div>"


def image(figure: "Figure", words: str) -> str:
    """Return a figure as an image inside the page, with words for those who cannot see it."""
    data = base64.b64encode(figure_bytes(figure, "png")).decode("ascii")
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{data}">'
