"""The images of class folders as one array, and a closing line of what was passed over."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from absl import logging

from anyshot_jax.data.readers import copies
from anyshot_jax.data.readers.file_size import file_content
from anyshot_jax.data.readers.images import (
    SUFFIXES,
    NotAnImage,
    NotRead,
    Reading,
    read_image,
    read_images,
)
from anyshot_jax.data.readers.notes import Notes, of_suffix
from anyshot_jax.data.readers.pixels import is_long
from anyshot_jax.types import Array, InputError

Classes = Mapping[tuple[str, str], list[Path]]  # (role or '', class) -> its files
CUT, COPY = 'images of which the centred square is all that is seen', 'copies within a class'
SHOWN = ", unless config.data.crop='auto'"
NEAR = 'images nearly alike in different roles'


def read_classes(
    root: Path,
    classes: Classes,
    config,
    notes: Notes,
    role: Mapping[tuple[str, str], str] | None = None,
    refuse_copies: bool = False,
) -> tuple[Array, Array]:
    """x [N, size, size, channels] uint8 and label [N], the place of an item's class in `classes`.

    What was passed over or looks odd is logged in one line at the end.

    Args:
      notes: what was passed over before. role: of every class, to find images that leak from one
        into the other; None: the first part of its key.
      refuse_copies: the same bytes in two classes are an error, else they are only counted.
    Raises:
      InputError: a class of no readable image, a damaged one (unless on_error='skip'), or a copy;
        names it.
    """
    files = [(f, c) for c, of_class in enumerate(classes.values()) for f in of_class]
    keys = list(classes)
    roles = [key[0] if role is None else role[key] for key in keys]
    reading = Reading(config.get('crop', 'centre'), tuple(config.get('range', ())))
    x = np.empty((len(files), config.size, config.size, config.channels), np.uint8)
    label: list[int] = []
    smalls, kept = [], []
    first: dict[bytes, tuple[Path, int]] = {}

    def read(path, name):
        try:
            content = file_content(path, config.max_pixels)
        except OSError as e:
            raise InputError(f'{path} is damaged or unreadable: {type(e).__name__}: {e}') from e
        odd: list[str] = []
        pixels = read_image(
            content, config.size, config.channels, config.max_pixels, str(path), reading.crop,
            reading.span, odd, shape := [],
        )  # fmt: skip
        return pixels, odd, copies.digest(content), copies.small(pixels), shape[0]

    images = read_images(len(files), lambda i: (files[i][0], ''), config, read)
    with closing(images):
        for (file, c), found in zip(files, images, strict=True):
            name = file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
            if isinstance(found, InputError):
                _passed_over(file, name, found, config.on_error, notes)
                continue
            x[len(label)], odd, digest, tiny, (width, height) = found
            notes.add_all(odd, name)
            if reading.crop == 'centre' and is_long((width, height)):
                notes.add(CUT + SHOWN * ('crop' in config), name)
            before, other = first.setdefault(digest, (file, c))
            if other != c and refuse_copies:
                raise InputError(
                    f'{file} has the same bytes as {before}: an image in two classes would leak '
                    'from one into the other'
                )
            if before != file:
                same = COPY if other == c else 'images with the same bytes as one of another class'
                notes.add(same, name)
            label.append(c)
            smalls.append(tiny)
            kept.append(name)
    number = {r: i for i, r in enumerate(sorted(set(roles)))}
    part = np.array([number[roles[c]] for c in label], int)
    for i, j in copies.nearly_alike(np.array(smalls, np.uint8), part):
        notes.add(NEAR, f'{kept[i]} and {kept[j]}')
    if notes:
        logging.warning('%s: %s', root, notes)
    present = np.bincount(label, minlength=len(classes)) > 0
    if not present.all():
        empty = '/'.join(p for p in keys[int(np.argmin(present))] if p)
        raise InputError(
            f'class {empty!r} in {root} has no readable image (passed over in all: '
            f'{notes or "nothing"})'
        )
    return x[: len(label)], np.array(label, np.int64)


def _passed_over(file: Path, name: str, error: InputError, on_error: str, notes: Notes) -> None:
    """Counts what is no image; raises the error of one that can't be read, unless skipped."""
    if isinstance(error, NotAnImage) and file.suffix.lower() not in SUFFIXES:
        notes.add(of_suffix(file.name), name)
    elif isinstance(error, NotRead):
        notes.add(why_not(file.name, error), name)
    elif on_error == 'raise':
        raise InputError(f"{error} (config.data.on_error='skip' goes on without it)")
    else:
        notes.add('images skipped, damaged or unreadable', name)
        logging.warning('skipped: %s', error)


def why_not(name: str, error: InputError) -> str:
    """The kind of an image that is whole but not read, and what to do."""
    return 'images larger than max_pixels' if 'max_pixels' in str(error) else of_suffix(name)
