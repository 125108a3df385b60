"""Text of data on its way into a page: it may hold anything, and must do nothing."""

import html
import json
from typing import Any


def plain(text: Any) -> str:
    """Return text without characters that cannot be seen or stored.

    Names of folders may hold halves of characters, and marks that turn the direction of
    all that follows.
    """
    return "".join(c if c.isprintable() else "?" for c in str(text))


def escape(text: Any) -> str:
    """Return text for HTML, in elements and between quotes of attributes."""
    return html.escape(plain(text), quote=True)


def script_json(value: Any) -> str:
    """Return JSON that stays inside its script element, whatever it holds."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
