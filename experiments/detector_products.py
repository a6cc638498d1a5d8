"""AnomalyDetector's defaults on other products: python experiments/detector_products.py [GROUP ...]

Groups: tiles (the magnetic ones with their true defects, strangers are textures), drawn (screws,
cables and washers in any pose on a plain ground, each drawn a few times), ktd (20 textures), dtd
(10 categories of textures, each of very different ones). Defects are synthetic ones
(`anyshot_jax/data/pseudo/`) on normal images that weren't fitted; strangers are the normal images
of the other products of the group. What this looks for is wrong defaults: false alarms, and
defects that are said to be of no product. Lines of results/anomaly_detector.jsonl.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from compare_detector import RESULTS, Tiles, auroc
from ml_collections import ConfigDict
from PIL import Image, ImageDraw, ImageFilter
from tables import read_lines, write_lines

from anyshot_jax.data.pseudo import classes
from anyshot_jax.detect import verdicts
from anyshot_jax.detect.detector import AnomalyDetector
from anyshot_jax.runtime.start import keep_compiled
from anyshot_jax.storage.folders import data_root

SIZE = 256
FIT = {'tiles': 752, 'drawn': 60, 'ktd': 14, 'dtd': 14}  # images of a product
EACH, STRANGERS = 20, 6  # images of a texture, and those of others that are shown
DRAWS, DRAWN = 4, 120  # products of a drawn kind, photographs of each
DEFECTS = {'classes': 10, 'val_classes': 0, 'per_class': 2}
ASKED = 0.05  # false alarms; of 14 images 1 / 15 is expected
MARGINS = (1.0, 1.1, 1.25, 1.5)


def screw(d: ImageDraw.ImageDraw) -> None:
    """Lies to the right, in the middle of 256 x 256."""
    d.rectangle((60, 118, 200, 138), fill=(150, 150, 155))
    d.polygon([(200, 118), (222, 128), (200, 138)], fill=(140, 140, 145))
    for x in range(90, 200, 8):
        d.line((x, 116, x + 6, 140), fill=(95, 95, 100), width=2)
    d.rectangle((40, 104, 62, 152), fill=(165, 165, 170))


def cable(d: ImageDraw.ImageDraw) -> None:
    """The cut end of a cable of three wires."""
    d.ellipse((50, 50, 206, 206), fill=(60, 60, 65))
    at = ((128, 92), (97, 146), (159, 146))
    for (x, y), colour in zip(at, ((180, 60, 50), (60, 130, 60), (60, 80, 170)), strict=True):
        d.ellipse((x - 32, y - 32, x + 32, y + 32), fill=colour)
        for a in range(0, 360, 60):
            cx, cy = x + 14 * np.cos(np.radians(a)), y + 14 * np.sin(np.radians(a))
            d.ellipse((cx - 6, cy - 6, cx + 6, cy + 6), fill=(200, 140, 80))


def washer(d: ImageDraw.ImageDraw) -> None:
    d.ellipse((68, 68, 188, 188), fill=(175, 175, 170))
    d.ellipse((100, 100, 156, 156), fill=(225, 225, 220))


def drawn(shape: Callable, count: int, seed: int) -> list[np.ndarray]:
    """Photographs, as it were: any turn, a few pixels of shift, light, blur and noise."""
    rng, images = np.random.default_rng(seed), []
    for _ in range(count):
        image = Image.new('RGB', (SIZE, SIZE), (225, 225, 220))
        shape(ImageDraw.Draw(image))
        right, down = (int(v) for v in rng.integers(-15, 16, 2))
        image = image.rotate(float(rng.uniform(0, 360)), Image.Resampling.BICUBIC,
                             translate=(right, down), fillcolor=(225, 225, 220))  # fmt: skip
        x = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)), np.float32)
        shown = x * rng.uniform(0.92, 1.08) + rng.normal(0, 3, x.shape)
        images.append(np.clip(shown, 0, 255).astype(np.uint8))
    return images


class Product(NamedTuple):
    """Images of a product, and others that its detector judges."""

    fitted: list
    groups: list | None  # of these, equal for near copies
    shown: dict[str, list]  # normal ones that weren't fitted, defects, strangers


def products(group: str) -> dict[str, Product]:
    """The products of a group by name."""
    if group == 'tiles':
        return {'tiles': tiles()}
    if group == 'drawn':
        images = {
            f'{shape.__name__} {draw}': drawn(shape, DRAWN, 10 * draw + i)
            for i, shape in enumerate((screw, cable, washer))
            for draw in range(DRAWS)
        }
    else:
        images = textures({'ktd': 'industrial/KTD/images', 'dtd': 'dtd/images'}[group], EACH)
    rng = np.random.default_rng(0)
    fields = ConfigDict(classes.FIELDS)
    fields.update(DEFECTS)
    found = {}
    for name, of in images.items():
        new = of[FIT[group] :]
        made = classes.make(np.stack(new), fields, SIZE**2)['train'].x
        kind = lambda name: name.split()[0]
        of_others = [some[FIT[group] :] for o, some in images.items() if kind(o) != kind(name)]
        others = [x for some in of_others for x in some]
        strangers = [others[i] for i in rng.permutation(len(others))[:STRANGERS]]
        shown: dict[str, list] = {'normal': new, 'defects': list(made), 'strangers': strangers}
        found[name] = Product(of[: FIT[group]], None, shown)
    return found


def textures(path: str, most: int) -> dict[str, list[np.ndarray]]:
    """Images of each kind in a folder of the data, `most` of each."""
    folder = data_folder() / path
    read = lambda path: np.asarray(Image.open(path).convert('RGB').resize((SIZE, SIZE)))
    of = lambda kind: [read(path) for path in sorted(kind.iterdir())[:most]]
    return {kind.name: of(kind) for kind in sorted(folder.iterdir()) if kind.is_dir()}


def tiles() -> Product:
    """Magnetic tiles with their true defects; strangers are textures."""
    data = Tiles(data_folder() / 'magnetic_tile')
    strangers = [x for of in textures('dtd/images', EACH).values() for x in of]
    shown: dict[str, list] = {
        'normal': data.of(data.good),
        'defects': data.of(data.bad),
        'strangers': strangers,
    }
    return Product(data.of(data.train), data.tile[data.train].tolist(), shown)


def data_folder() -> Path:
    root = data_root()
    if root is None:
        raise SystemExit('set ANYSHOT_DATA_DIR to a folder of dtd, industrial and magnetic_tile')
    return root


def judged(group: str) -> dict:
    far: dict[str, list[float]] = {'normal': [], 'defects': [], 'strangers': []}
    areas, alarms, found, expected = [], [], [], []
    every = products(group)
    for name, product in every.items():
        detector = AnomalyDetector(false_alarm=ASKED).fit(product.fitted, groups=product.groups)
        (known,) = detector.normal_.values()
        score = {}
        for kind, some in product.shown.items():
            told = [(said.score, one) for _, said, one in detector.each(some)]
            score[kind] = np.array([s for s, _ in told])
            far[kind] += [verdicts.how_far(known, one) for _, one in told]
        areas.append(auroc(score['normal'], score['defects']))
        alarms.append(score['normal'] > detector.threshold_)
        found.append(np.mean(score['defects'] > detector.threshold_))
        expected.append(detector.promise_.expected)
        print(name, areas[-1], alarms[-1].sum(), found[-1], flush=True)
    share = lambda of, margin: round(float(np.mean(np.array(of) > margin / verdicts.MARGIN)), 4)
    called = np.concatenate(alarms)
    return {
        'part': 'products', 'group': group, 'products': len(every),
        'fitted': len(product.fitted), 'new': len(called), 'asked': ASKED,
        'auroc': round(float(np.mean(areas)), 4), 'worst_auroc': min(areas),
        'false_alarms': round(float(called.mean()), 4),
        'worst_false_alarms': round(float(max(of.mean() for of in alarms)), 4),
        'expected': round(float(np.mean(expected)), 4),
        'detected': round(float(np.mean(found)), 4), 'margin': verdicts.MARGIN,
        'of_none': {kind: {str(m): share(of, m) for m in MARGINS} for kind, of in far.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('groups', nargs='*', default=list(FIT), help=', '.join(FIT))
    groups = parser.parse_args().groups
    logging.set_verbosity(logging.ERROR)
    keep_compiled()
    for group in groups:
        line = judged(group)
        print(json.dumps(line), flush=True)
        lines = read_lines(RESULTS)
        same = lambda one, group=group: one['part'] == 'products' and one['group'] == group
        write_lines(RESULTS, [*(one for one in lines if not same(one)), line])


if __name__ == '__main__':
    main()
