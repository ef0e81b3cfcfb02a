"""The page at /: one file, without scripts from elsewhere, for trying the API in a browser."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from napari_pixseg.parameters import ColorSpace, Parameters

_FILE = Path(__file__).with_name("page.html")
_SPACES = "<!-- color spaces -->"


async def send_page(_request: Request) -> Response:
    """Send the page."""
    content, policy = _read_page()
    headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
    return HTMLResponse(content, headers=headers)


@cache
def _read_page() -> tuple[str, str]:
    """Return the page, and a policy with which a browser runs only the page's own script."""
    content = _FILE.read_text(encoding="utf-8").replace(_SPACES, _list_color_spaces())
    rules = {
        "default-src": ["'none'"],
        "script-src": _hashes_of(content, "script"),
        "style-src": _hashes_of(content, "style"),
        "img-src": ["'self'", "blob:"],
        "connect-src": ["'self'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
    return content, "; ".join(f"{name} {' '.join(values)}" for name, values in rules.items())


def _list_color_spaces() -> str:
    """Return the options of the field ``cs`` as HTML."""
    usual = Parameters().cs
    return "".join(
        f'<option value="{space.value}"{" selected" if space is usual else ""}>'
        f"{space.value} {space.name}</option>"
        for space in ColorSpace
    )


def _hashes_of(content: str, tag: str) -> list[str]:
    parts = re.findall(rf"<{tag}>(.*?)</{tag}>", content, re.DOTALL)
    digests = [hashlib.sha256(part.encode()).digest() for part in parts]
    return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
