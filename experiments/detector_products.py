"""AnomalyDetector's defaults on other products: python experiments/detector_products.py [GROUP ...]

Groups: drawn (screws, cables and washers in any pose on a plain ground), ktd (20 textures), dtd (10
categories of textures, each of very different ones). Defects are synthetic ones
(`anyshot_jax/data/pseudo/`) on normal images that weren't fitted; strangers are the normal images
of the other products of the group. What this looks for is wrong defaults: false alarms, and
defects that are said to be of no product. Lines of results/anomaly_detector.jsonl.
"""

import argparse
import json
from collections.abc import Callable

import numpy as np
from absl import logging
from compare_detector import RESULTS, auroc
from ml_collections import ConfigDict
from PIL import Image, ImageDraw, ImageFilter
from tables import read_lines, write_lines

from anyshot_jax.data.pseudo import classes
from anyshot_jax.detect import verdicts
from anyshot_jax.detect.detector import AnomalyDetector
from anyshot_jax.runtime.start import keep_compiled
from anyshot_jax.storage.folders import data_root

SIZE = 256
FIT, NEW = {'drawn': 60, 'ktd': 14, 'dtd': 14}, 6  # images of a product
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


def products(group: str) -> dict[str, list[np.ndarray]]:
    """Normal images of each product of a group."""
    if group == 'drawn':
        count = FIT[group] + NEW
        return {f.__name__: drawn(f, count, i) for i, f in enumerate((screw, cable, washer))}
    root = data_root()
    if root is None:
        raise SystemExit('set ANYSHOT_DATA_DIR to a folder that has dtd and industrial')
    folder = root / {'ktd': 'industrial/KTD/images', 'dtd': 'dtd/images'}[group]
    read = lambda path: np.asarray(Image.open(path).convert('RGB').resize((SIZE, SIZE)))
    of = lambda kind: [read(path) for path in sorted(kind.iterdir())[: FIT[group] + NEW]]
    return {kind.name: of(kind) for kind in sorted(folder.iterdir()) if kind.is_dir()}


def judged(group: str) -> dict:
    images = products(group)
    rng = np.random.default_rng(0)
    new = {name: of[FIT[group] :] for name, of in images.items()}
    far: dict[str, list[float]] = {'normal': [], 'defects': [], 'strangers': []}
    areas, alarms, found, expected = [], [], [], []
    fields = ConfigDict(classes.FIELDS)
    fields.update(DEFECTS)
    for name, of in images.items():
        detector = AnomalyDetector(false_alarm=ASKED).fit(of[: FIT[group]])
        made = classes.make(np.stack(new[name]), fields, SIZE**2)['train'].x
        others = [x for other, of_other in new.items() if other != name for x in of_other]
        shown = {'normal': new[name], 'defects': list(made),
                 'strangers': [others[i] for i in rng.permutation(len(others))[:NEW]]}  # fmt: skip
        (known,) = detector.normal_.values()
        score = {}
        for kind, some in shown.items():
            told = [(said.score, one) for _, said, one in detector.each(some)]
            score[kind] = np.array([s for s, _ in told])
            far[kind] += [verdicts.how_far(known, one) for _, one in told]
        areas.append(auroc(score['normal'], score['defects']))
        alarms.append(np.mean(score['normal'] > detector.threshold_))
        found.append(np.mean(score['defects'] > detector.threshold_))
        expected.append(detector.promise_.expected)
        print(name, areas[-1], alarms[-1], found[-1], {k: round(max(v), 2) for k, v in far.items()})
    share = lambda of, margin: round(float(np.mean(np.array(of) > margin / verdicts.MARGIN)), 4)
    return {
        'part': 'products', 'group': group, 'products': len(images), 'fitted': FIT[group],
        'auroc': round(float(np.mean(areas)), 4), 'worst_auroc': min(areas),
        'false_alarms': round(float(np.mean(alarms)), 4),
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
