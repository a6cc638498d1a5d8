"""Compares crops of images that are no squares: centred square, all of it stretched, or tiles.

    python experiments/choose_crop.py

Five examples a class, frozen EfficientNet-Lite0 features, classes told by AnyShotClassifier, five
draws with fixed seeds. Objects (Grocery, emoji) stand anywhere on a canvas of another colour that
is 1.5, 2 or 3 times as wide as high; textures (KTD) and metal defects (MSD) are cut to such
strips; magnetic tiles are as they come. Twelve classes of each set by seed. The table is in
README.md: over all, tiles are ahead of the whole image stretched (which distorts objects) and of
the centred square (which loses what lies at the ends of 3:1), so that 'auto' takes tiles.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from anyshot_jax import AnyShotClassifier
from anyshot_jax.classify.frozen import frozen
from anyshot_jax.classify.picture_input import READING
from anyshot_jax.storage.folders import data_root

CROPS = ('centre', 'whole', 'tiles')
SHOTS, QUERIES, DRAWS, CLASSES = 5, 10, 5, 12


def packed(path: Path, rng: np.random.Generator) -> dict[str, list[Image.Image]]:
    """Some images of some classes of a packed set."""
    z = np.load(path)
    files = z['jpeg'] if 'jpeg' in z else z['image']
    label, offset = z['label'], z['offset']
    count = np.bincount(label)
    chosen = rng.permutation(np.flatnonzero(count >= SHOTS + 3))[:CLASSES]
    read = lambda i: Image.open(io.BytesIO(files[offset[i] : offset[i + 1]].tobytes()))
    some = lambda c: rng.permutation(np.flatnonzero(label == c))[: SHOTS + QUERIES]
    return {str(c): [read(i).convert('RGB') for i in some(c)] for c in chosen}


def folders(root: Path, rng: np.random.Generator) -> dict[str, list[Image.Image]]:
    """Some images of some class folders."""
    found: dict[str, list[Image.Image]] = {}
    for name in rng.permutation(sorted(p.name for p in root.iterdir() if p.is_dir())):
        files = sorted(p for p in (root / name).rglob('*') if p.suffix.lower() in ('.png', '.jpg'))
        if len(files) >= SHOTS + 3 and len(found) < CLASSES:
            kept = rng.permutation(len(files))[: SHOTS + QUERIES]
            found[str(name)] = [Image.open(files[i]).convert('RGB') for i in kept]
    return found


def on_canvas(image: Image.Image, ratio: float, rng: np.random.Generator) -> Image.Image:
    """The object anywhere on a wide canvas."""
    side = image.height
    canvas = Image.new('RGB', (round(side * ratio), side), tuple(rng.integers(90, 220, 3).tolist()))
    canvas.paste(image, (int(rng.integers(canvas.width - image.width + 1)), 0))
    return canvas


def strip(image: Image.Image, ratio: float, rng: np.random.Generator) -> Image.Image:
    """A strip of a texture."""
    width, height = image.size
    cut = round(min(width, height) / ratio)
    top = int(rng.integers(height - cut + 1))
    return image.crop((0, top, width, top + cut))


def accuracy(classes: dict[str, list[Image.Image]], crop: str) -> list[float]:
    """Share of right answers, the mean over classes, of each draw."""
    net, names = frozen('efficientnet_lite0'), sorted(classes)
    items = [x for name in names for x in classes[name]]
    label = np.array([name for name in names for _ in classes[name]])
    z = net.features(items, READING._replace(crop=crop))
    shares = []
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        rows = np.concatenate([rng.permutation(np.flatnonzero(label == n))[:SHOTS] for n in names])
        rest = np.setdiff1d(np.arange(len(label)), rows)
        model = AnyShotClassifier(power=0.5, normalise=True).fit(z[rows], label[rows])
        right = model.predict(z[rest]) == label[rest]
        shares.append(float(np.mean([right[label[rest] == n].mean() for n in names])))
    return shares


def main() -> None:
    root = data_root()
    if root is None:
        sys.exit('ANYSHOT_DATA_DIR is not set')
    rng = np.random.default_rng(0)
    sets = {
        'emoji': packed(root / 'emoji/emoji64.npz', rng),
        'Grocery': packed(root / 'grocery/grocery112.npz', rng),
    }
    textures = {s: folders(root / f'industrial/{s}/images', rng) for s in ('KTD', 'MSD')}
    tiles = folders(root / 'magnetic_tile/test', rng)
    wide = {k: [x for x in v if max(x.size) * 3 > min(x.size) * 4] for k, v in tiles.items()}
    cases = {'magnetic tiles as they are': {k: v for k, v in wide.items() if len(v) > SHOTS + 2}}
    for ratio in (1.5, 2.0, 3.0):
        for name, classes in sets.items():
            cases[f'{name} on a canvas, {ratio:g}:1'] = {
                k: [on_canvas(x, ratio, rng) for x in v] for k, v in classes.items()
            }
        for name, classes in textures.items():
            cases[f'{name}, strips {ratio:g}:1'] = {
                k: [strip(x, ratio, rng) for x in v] for k, v in classes.items()
            }
    print('| images | ' + ' | '.join(CROPS) + ' |\n' + '| --- ' * (len(CROPS) + 1) + '|')
    for name, classes in cases.items():
        found = [accuracy(classes, crop) for crop in CROPS]
        cells = [f'{np.mean(f) * 100:.1f} ± {np.std(f) * 100:.1f}' for f in found]
        print(f'| {name}, {len(classes)} classes | ' + ' | '.join(cells) + ' |', flush=True)


if __name__ == '__main__':
    main()
