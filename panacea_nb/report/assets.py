"""Scripts of the pages and the rule that lets nothing else run; pages as one file."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from html import unescape
from pathlib import Path
from urllib.parse import unquote

from markupsafe import Markup

from ..errors import PanaceaError
from . import interactive

TEMPLATES = Path(__file__).with_name("templates")
LARGEST_FILE = 10_000_000
_SOURCE = re.compile(r'(<img\b[^>]*?\bsrc=")([^":]+)(")')
_LINK = re.compile(
    r'<a\b(?P<before>[^>]*?)\shref="(?P<href>(?!#|https?:)[^"]*)"(?P<after>[^>]*)>(?P<text>.*?)</a>', re.DOTALL
)


class TooLargeError(PanaceaError):
    """A page as one file is larger than mail takes."""


@lru_cache(maxsize=8)
def script(name: str) -> Markup:
    """A script of this package, as it stands on a page."""
    return Markup((TEMPLATES / f"{name}.js").read_text(encoding="utf-8").strip())


def policy(scripts: Sequence[str] = (), *, bokeh: str = "") -> str:
    """The content security policy of a page: only the named scripts run, nothing is asked from the network.

    Parameters
    ----------
    scripts : sequence of str
        Scripts of this package that stand on the page.
    bokeh : str
        ``inline``, ``file`` (beside the page) or empty.
    """
    allowed = [_hash(script(name)) for name in scripts]
    if bokeh == "inline":
        allowed.append(_hash(interactive.script()))
    if bokeh == "file":
        allowed += ["'self'", "file:"]
    rule = f"; script-src {' '.join(allowed)}" if allowed else ""
    return f"default-src 'none'; img-src 'self' file: data: blob:; style-src 'unsafe-inline'{rule}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def one_file(page: str, folder: Path, keep: Callable[[str], bool] = lambda href: False) -> str:
    """A page that holds its images and needs no other file; links to other files become plain text.

    Parameters
    ----------
    page : str
        HTML whose script of Bokeh, if it has one, is inline already.
    folder : Path
        Where the page lies, to find its images.
    keep : callable
        Says of a link whether it stays.

    Raises
    ------
    TooLargeError
    """

    def embed(match: re.Match) -> str:
        path = folder / unquote(unescape(match[2]))
        try:
            content = path.read_bytes()
        except OSError:
            return match[0]
        kind = mimetypes.guess_type(path.name)[0] or "image/png"
        return f"{match[1]}data:{kind};base64,{base64.b64encode(content).decode()}{match[3]}"

    def unlink(match: re.Match) -> str:
        return match[0] if keep(match["href"]) else f"<span{match['before']}{match['after']}>{match['text']}</span>"

    # Scripts are left alone: what looks like HTML in them is none.
    pieces = re.split(r"(<script\b.*?</script>)", page, flags=re.DOTALL)
    made = "".join(p if p.startswith("<script") else _SOURCE.sub(embed, _LINK.sub(unlink, p)) for p in pieces)
    if len(made.encode()) > LARGEST_FILE:
        raise TooLargeError(
            f"the page as one file has {len(made.encode()) / 1e6:.1f} MB, more than the {LARGEST_FILE / 1e6:.0f} MB that mail "
            "takes: name one target with --target, or send the report's folder"
        )
    return made
