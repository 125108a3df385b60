"""The group of every row, such as the camera it was taken by, from an .npz file."""

import zipfile
from pathlib import Path

import numpy as np

from jaxmetric.cli.errors import UsageError
from jaxmetric.data import archives
from jaxmetric.data.texts import is_text_file

# What is taken where no name is given.
USUAL = "groups"


def read_groups(data: str, num_rows: int, name: str | None) -> np.ndarray | None:
    """Return [n] values of which only equality counts, None where a file has none.

    Args:
      data: the data set as the user named it, which has been loaded.
      num_rows: how many rows it has.
      name: of the array; None takes `groups` where there is one.

    Raises:
      UsageError: there is no such array, or it does not fit the rows.
    """
    path = Path(data)
    if not path.is_file() or is_text_file(data):
        if name is None:
            return None
        raise UsageError(
            f"--groups {name}: {data} is no .npz file, whose array it could be. "
            "Leave it out, or give the data as an .npz file."
        )
    wanted = USUAL if name is None else name
    try:
        with zipfile.ZipFile(path) as archive:
            names = archives.array_names(archive)
            if wanted not in names:
                if name is None:
                    return None
                hint = ", ".join(names[:20])
                raise UsageError(
                    f"--groups {name}: {data} holds no such array (it holds {hint}). "
                    "Give the name of one."
                )
            member = archives.read_header(archive, wanted, archives.size_of(path))
            if member.dtype.kind not in "biuSU":
                raise archives.BadArchive(
                    f"`{wanted}` must be integers, bools or texts, got {member.dtype}"
                )
            num_axes = len(member.shape)
            blocks = archives.read_blocks(archive, member, num_axes=num_axes)
            groups = np.concatenate([np.empty(0, member.dtype), *blocks])
    except (archives.BadArchive, zipfile.BadZipFile, OSError) as error:
        raise UsageError(f"{data}: {error}. Write the array again.") from error
    if len(groups) != num_rows:
        raise UsageError(
            f"{data}: has {num_rows:,} rows but `{wanted}` has {len(groups):,}. "
            "Give one group for each row, in the same order."
        )
    return groups


def number(*sides: np.ndarray) -> list[np.ndarray]:
    """Return groups as int32 numbers, equal where the groups are, over all sides.

    Raises:
      UsageError: one side has texts and another numbers.
    """
    if len({side.dtype.kind in "SU" for side in sides}) > 1:
        raise UsageError(
            "the groups of one set are texts, those of the other numbers, so none are "
            "equal. Name groups alike in both."
        )
    texts = [np.char.decode(s, "latin-1") if s.dtype.kind == "S" else s for s in sides]
    _, numbers = np.unique(np.concatenate(texts), return_inverse=True)
    ends = np.cumsum([len(side) for side in sides])[:-1]
    return np.split(numbers.astype(np.int32), ends)
