"""Tables in text, .csv or .tsv, from anywhere: a row at a time, in bounded memory."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from anyshot_jax.storage.files import read_whole
from anyshot_jax.types import InputError

MAX_BYTES = 50_000_000
MAX_LINE = 500_000  # characters: a line of more is none of a few columns


def rows(path: Path, mark: str = '') -> Iterator[list[str]]:
    """The rows of a table in UTF-8, its header first.

    Args:
      mark: between two cells; '': the one of , ; and tab that the first line has most of.
    Raises:
      InputError: unreadable, too large, or no table; names the file.
    """
    try:
        text = read_whole(path, MAX_BYTES).decode('utf-8-sig')
        first = text[:MAX_LINE].split('\n', 1)[0]
        mark = mark or max(',;\t', key=first.count)
        yield from csv.reader(_lines(text), delimiter=mark, strict=True)
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise InputError(f'{path} is not a readable table in UTF-8: {e}') from e


def _lines(text: str) -> Iterator[str]:
    for number, line in enumerate(io.StringIO(text), 1):
        if len(line) > MAX_LINE:
            raise csv.Error(f'line {number} has {len(line):,} characters')
        yield line
