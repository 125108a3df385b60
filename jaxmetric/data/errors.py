"""The one error of data files, told in one line whatever the file is called."""

import os


class DataError(ValueError):
    """A file, folder or image cannot be used: its name, the reason, the remedy.

    The message is always one line; the exception of the reader underneath, if there
    was one, is chained as ``__cause__``.
    """


def data_error(path: str | os.PathLike, reason: str, remedy: str) -> DataError:
    """Return a DataError ``path: reason. Remedy.`` on one printable line."""
    return DataError(f"{printable(path)}: {_one_line(reason)}. {_one_line(remedy)}")


def printable(name: str | os.PathLike) -> str:
    """Return a file name with control characters and broken UTF-8 spelt out."""
    # A legal name may hold a line feed, a terminal escape or bytes that are no text.
    text = os.fspath(name).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def _one_line(text: str) -> str:
    """Return a text without line feeds, control characters or a final full stop."""
    text = " ".join(printable(text.replace("\n", " ")).split())
    return text if len(text) <= 400 else text[:400] + " ..."
