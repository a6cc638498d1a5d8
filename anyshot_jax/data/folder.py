"""Your own images, one folder a class: <class>/<image>, folders below a class taken with it.

Either the directory holds `train`, `val` and `test` with class folders in each, or class folders
only, which config splits (fractions and seed, or lists of names). Classes are sorted by name,
images by path. Hidden files, system files and files that are no images are passed over and
counted in one line at the end. Links may lead to anywhere inside the directory, with follow_links
also out of it. The same bytes in two classes are refused.

Instead of class folders there may be a list: labels.csv, .tsv or .xlsx, or an export of COCO or
YOLO, see `manifest.py`.

A `classes.json` beside the class folders may describe the classes, see `descriptions.py`.
"""

from ml_collections import ConfigDict

from anyshot_jax.data.readers.classes import read_classes
from anyshot_jax.data.readers.descriptions import checked_descriptions, warn_same
from anyshot_jax.data.readers.folder_tree import Tree
from anyshot_jax.data.readers.images import Reading, check_fields
from anyshot_jax.data.readers.locate import find_dir
from anyshot_jax.data.readers.manifest import find_tree
from anyshot_jax.data.splits import FIELDS, ROLES, check_disjoint, split_classes, split_items
from anyshot_jax.types import Data, InputError

DEFAULTS = {
    **FIELDS,
    'size': 84,  # images are cropped and resized to size x size
    # centre: the largest centred square | whole: all of it, sides stretched | auto: centre where
    # the sides differ by a third at most, else whole
    'crop': 'centre',
    'range': (),  # (low, high): what becomes 0 and 255 of 16 bits and floats; (): their own
    'follow_links': False,  # True: also out of the directory
    'channels': 3,  # 3 colour | 1 grey
    'on_error': 'raise',  # raise | skip (and count) images that can't be read
    'max_pixels': 50_000_000,  # an image that unpacks to more is refused
    'turns': 1,
    'turns_eval': 1,
}

CROPS = ('centre', 'whole', 'auto')
LAYOUT = '<class>/<image>, or train/<class>/<image> and the same for val and test'


def load(config: ConfigDict) -> Data:
    """Data of uint8 [N, size, size, channels]; names are the folders' names.

    Raises:
      InputError: no directory, no class, a class without images or in two roles, a damaged
        image (unless on_error='skip'), a link out of the directory; names it.
    """
    check_fields(config)
    Reading(span=tuple(config.range)).check()
    if config.crop not in CROPS:
        tiles = config.crop == 'tiles'
        why = (
            ' (a net takes one square of an image; predict and AnyShotClassifier see tiles)' * tiles
        )
        raise InputError(f'config.data.crop={config.crop!r}: need {", ".join(CROPS)}{why}')
    root = find_dir(config.dir, 'folder', LAYOUT)
    tree = find_tree(root, config.follow_links)
    if not tree.classes:
        raise InputError(f'{root} holds no class folder with files in it; expected {LAYOUT}')
    described = checked_descriptions(root, {name for _, name in tree.classes})
    warn_same(described)
    roles = _roles(tree, config)
    keys = sorted(tree.classes, key=lambda key: (roles[key], key))  # so that no role is copied
    check_disjoint({r: [n for k, n in keys if roles[k, n] == r] for r in ROLES})  # before work
    classes = {key: tree.classes[key] for key in keys}
    x, label = read_classes(root, classes, config, tree.notes, roles, refuse_copies=True)
    turns = (config.turns, config.turns_eval)
    names = [name for _, name in keys]
    texts = [described.get(name, '') for name in names]
    return split_items(x, label, names, [roles[k] for k in keys], texts=texts, turns=turns)


def _roles(tree: Tree, config: ConfigDict) -> dict[tuple[str, str], str]:
    if tree.has_roles:
        return {key: key[0] for key in tree.classes}
    role = split_classes([name for _, name in tree.classes], config)
    return {key: role[key[1]] for key in tree.classes}
