"""One HTML page of a run that needs nothing else: styles, scripts, the charts' library and the data stand in it.

Whatever a model, a file or a recipe says is data: JSON in script elements that are not run, which the page's own script reads and shows as
text. The policy in the page's head allows the two scripts that stand in it, by their digests, and nothing from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import math
from datetime import UTC, datetime
from functools import cache
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

from omnistage.data.errors import InputError
from omnistage.stages import files
from omnistage.stages.report.view import NoRoom, View, as_json, view

STATIC = Path(__file__).with_name("static")
# In this order they are one script.
SCRIPTS = (
    *("base.js", "charts.js", "overview.js", "curves.js", "clips.js", "player.js", "compare.js", "heads.js", "about.js"),
    *("keeping.js", "live.js", "page.js"),
)
STYLES = ("page.css", "live.css")
MAX_MB = 20.0
# Bytes of the page that are no sample, no data, and no library.
_FRAME = 20_000


def write(run: Path, out: Path, *, max_mb: float = MAX_MB, with_plan: bool = True) -> dict[str, Any]:
    """Write the page of a run to `out`, whole or not at all; returns its size in bytes and what it shows of how much.

    Raises:
        InputError: the folder holds no run, `out` cannot be written, or `max_mb` is too small for a page without samples.
    """
    if out.is_dir():
        raise InputError(f"--out {out}: is a folder; allowed: the file to write, as {out / 'report.html'}")
    fixed = frame_size()
    room = int(max_mb * 1e6) - fixed
    if room <= 0:
        raise InputError(f"--max-mb {max_mb:g}: the page takes {fixed / 1e6:.1f} MB without any data (its charts' library); give more")
    try:
        made = view(run, room=room, page=out, with_plan=with_plan)
    except NoRoom as error:
        needed = math.ceil(10 * (max_mb + error.over / 1e6) + 1) / 10
        raise InputError(
            f"--max-mb {max_mb:g} is too small: without any sample the page takes {error.over / 1e6:.2g} MB more; give {needed:g} or more"
        ) from error
    html = render(made)
    try:
        files.write_text(out, html)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from error
    shown, clips = made.shown, made.shown["clips"]
    told = (
        f"{shown['groups']} of {shown['groups_of']} prompts with their rollouts, {shown['items']} of {shown['items_of']} held-out items, "
        f"{clips['played']} of {clips['of']} clips to play"
    )
    return {"bytes": len(html.encode()), "told": told}


def frame_size() -> int:
    """Bytes of a page without data."""
    return len(library()) + len(script()) + len(style()) + _FRAME


def render(made: View) -> str:
    """The page as text."""
    head = _element("data", made.head() | {"made": about()})
    return _filled(made.data["run"]["name"], policy(), "\n".join([head, *(_element(key, part) for key, part in made.parts.items())]))


def served(name: str) -> str:
    """The page without data, which it fetches from where it comes from, again and again (`live.js`)."""
    return _filled(name, policy(live=True), "")


def about() -> dict[str, str]:
    """By what, and when, something was made."""
    return {"version": metadata.version("omnistage"), "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}


def _filled(name: str, rules: str, data: str) -> str:
    filled = {
        "TITLE": escape(f"{_visible(name)} · omnistage report"),
        "POLICY": escape(rules, quote=True),
        "STYLE": style(),
        "DATA": data,
        "LIBRARY": library(),
        "SCRIPT": script(),
    }
    out = (STATIC / "page.html").read_text("utf-8")
    # In one pass: what is filled in may hold the name of a place.
    pieces = out.split("%%")
    return "".join(filled[piece] if at % 2 else piece for at, piece in enumerate(pieces))


def policy(*, live: bool = False) -> str:
    """The content security policy: the page's own two scripts, its own styles, media in it or beside it, and no connection; of a `live`
    page media and connections from where it comes from."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in (library(), script()))
    rules = {
        "default-src": "'none'",
        "script-src": hashes,
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "media-src": "'self'" if live else "data: blob: 'self' file:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    if live:
        rules["connect-src"] = "'self'"
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _element(key: str, value: Any) -> str:
    return f'<script type="application/json" id="{key}">{as_json(value)}</script>'


def _visible(text: str) -> str:
    """A name without what would turn or hide the text around it."""
    return "".join(character if character.isprintable() else "�" for character in text)


@cache
def library() -> str:
    """plotly.js as its Python package holds it, with nothing in it that would end a script element."""
    from plotly.offline import get_plotlyjs

    return _in_script(str(get_plotlyjs()))


@cache
def script() -> str:
    """The page's own script."""
    parts = [(STATIC / name).read_text("utf-8") for name in SCRIPTS]
    return _in_script('"use strict";\n(() => {\n' + "\n".join(parts) + "\n})();\n")


@cache
def style() -> str:
    """The page's own styles."""
    return "".join((STATIC / name).read_text("utf-8") for name in STYLES)


def _in_script(text: str) -> str:
    """The same program, which a browser reads as one script whatever its strings hold; line ends as a browser has them."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script").replace("<!--", "<\\!--")
