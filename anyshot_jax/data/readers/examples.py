"""Examples of classes in a folder <class>/<image>, for whoever learns from them."""

from pathlib import Path
from typing import NamedTuple

from anyshot_jax.data.readers.descriptions import checked_descriptions
from anyshot_jax.data.readers.images import SUFFIXES
from anyshot_jax.data.readers.manifest import find_tree
from anyshot_jax.data.readers.notes import Notes, of_suffix
from anyshot_jax.types import InputError

LAYOUT = '<class>/<image>'


class Examples(NamedTuple):
    """The image files of every class, sorted."""

    files: list[Path]
    labels: list[str]
    described: dict[str, str]  # by classes.json beside the class folders
    notes: Notes  # what was passed over


def examples(root: Path) -> Examples:
    """The examples below a folder; nothing is opened but classes.json.

    Raises:
      InputError: as `find_classes`; or train, val and test instead of classes.
    """
    tree = find_tree(root)
    if tree.has_roles:
        roles = sorted({role for role, _ in tree.classes})
        raise InputError(f'{root} holds {", ".join(roles)}: give one of them, as {root}/{roles[0]}')
    if not tree.classes:
        raise InputError(f'{root} holds no class folder with images in it; expected {LAYOUT}')
    pairs = []
    for (_, name), files in tree.classes.items():
        for file in files:
            if file.suffix.lower() in SUFFIXES:
                pairs.append((file, name))
            else:
                tree.notes.add(of_suffix(file.name), file.relative_to(root).as_posix())
    described = checked_descriptions(root, {name for _, name in tree.classes})
    return Examples([f for f, _ in pairs], [n for _, n in pairs], described, tree.notes)
