"""A figure as a file, as SVG text, or inside a page that has its own colours."""

import html
import io
import re
import warnings

from matplotlib.figure import Figure
from matplotlib.text import Text

from .fonts import missing
from .style import GRID, INK, PAPER, settings

_PROLOGUE = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_ID = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(href="#|url\(#)([^")]+)')
_PATH = re.compile(r' d="[^"]*"')
_LONG_NUMBER = re.compile(r"(\d+\.\d{2})\d+")


def to_svg(figure: Figure) -> str:
    """The figure as an SVG document. Text is drawn as outlines: it looks the same without the font.

    Where a font lacks a letter that the figure has all the same (`fonts.SHOWN_ELSEWHERE`), text stays text.
    """
    text = io.StringIO()
    gaps = any(missing(artist.get_text()) for artist in figure.findobj(Text))
    with settings(svg__fonttype="none" if gaps else "path"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # whoever shows it has the font
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def to_file(figure: Figure, kind: str) -> bytes:
    """The figure as a `pdf`, `svg` or `png` (300 dots an inch) file, as it goes into a paper."""
    if kind == "svg":
        return to_svg(figure).encode()
    data = io.BytesIO()
    dated = "CreationDate" if kind == "pdf" else "Creation Time"  # the same figure is the same file
    with settings():
        paper = "white" if kind == "png" else "none"  # shown as it is, also where the page is dark
        figure.savefig(data, format=kind, dpi=300, facecolor=paper, metadata={dated: None})
    return data.getvalue()


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an `<svg>` element for an HTML page.

    Its identifiers begin with `name` (a page has many figures, and an identifier may occur once), its ink,
    grid and paper are the page's `--ink`, `--grid` and `--paper`, coordinates of lines have two decimals, and
    `description` is what a screen reader says.
    """
    svg = _METADATA.sub("", _PROLOGUE.sub("", to_svg(figure)), count=1)
    svg = _ID.sub(rf'id="{name}-\1"', svg)
    svg = _REFERENCE.sub(rf"\1{name}-\2", svg)
    for color, variable in ((INK, "--ink"), (GRID, "--grid"), (PAPER, "--paper")):
        svg = svg.replace(color, f"var({variable})")
    svg = svg.replace("font-family: ", "font-family: system-ui, ") if "<text" in svg else svg
    head, body = svg.split(">", 1)
    body = _PATH.sub(lambda path: _LONG_NUMBER.sub(r"\1", path.group()), body)
    return f'{head} role="img" aria-label="{html.escape(description)}">{body}'
