"""The labelled images of a folder <class>/<image>, each one opened once before any is used."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import logging

from anyshot_jax.classify.picture_input import MAX_PIXELS
from anyshot_jax.data.readers.folder_tree import find_classes
from anyshot_jax.data.readers.images import SUFFIXES, open_image
from anyshot_jax.types import InputError

STEP = 256  # images that are opened before the first error ends it
NAMED = 10  # files passed over that are named; all are counted


def labelled(root: Path, *, skip: bool) -> tuple[list[Path], list[str], int]:
    """(files, the class of each, how many were passed over).

    Notes and tables among the images are passed over in silence.

    Raises:
      InputError: no class folders, train, val and test in them, or an image that can't be read
        (unless skip); names it.
    """
    tree = find_classes(root)
    if tree.has_roles:
        raise InputError(f'{root} holds train, val and test: give one of them, as {root}/train')
    named = [(file, name) for (_, name), inside in tree.classes.items() for file in inside]
    kept: list[tuple[Path, str]] = []
    skipped = 0
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(named), STEP):
            part = named[start : start + STEP]
            errors = pool.map(_error, (file for file, _ in part))
            for error, (file, name) in zip(errors, part, strict=True):
                if not error:
                    kept.append((file, name))
                elif file.suffix.lower() in SUFFIXES:
                    if not skip:
                        raise InputError(f'{error} (--on_error=skip goes on without it)')
                    skipped += 1
                    if skipped <= NAMED:
                        logging.warning('skipped: %s', error)
    if not kept:
        raise InputError(f'{root} holds no class folder with images in it: need <class>/<image>')
    return [file for file, _ in kept], [name for _, name in kept], skipped


def _error(file: Path) -> str:
    """Reason why an image can't be read, or ''."""
    try:
        open_image(file, MAX_PIXELS)
    except InputError as e:
        return str(e)
    return ''
