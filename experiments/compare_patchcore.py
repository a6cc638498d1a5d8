"""The detector beside anomalib's PatchCore: python experiments/compare_patchcore.py --dir=CATEGORY

Both see the same patch features of a category in MVTec AD's layout. Ours is `memory_bank.choose`
and `score_patches`; anomalib's its own greedy coreset (KCenterGreedy) and nearest-neighbour search,
with the distances' maps enlarged and smoothed here as ours are. Prints one line of JSON: the
seconds of both, and of both the areas under the curve by image and by pixel and PRO, in per cent.
anomalib (and PyTorch) is optional: without it only ours is measured.
"""

import json
import time

import jax
import numpy as np
from absl import app, flags

from anyshot_jax import config as configs
from anyshot_jax.defects import memory_bank
from anyshot_jax.defects.detector import score_patches
from anyshot_jax.ops.detection import area_under, enlarge, pixel_values
from anyshot_jax.runtime.start import MAX_CPU_DEVICES, cores

_DIR = flags.DEFINE_string('dir', None, 'The folder of a category.', required=True)
_ENCODER = flags.DEFINE_string('encoder', 'efficientnet_lite0', 'As config.method.encoder.')
_LAYERS = flags.DEFINE_list('layers', ['stride16', 'stride32'], 'As config.method.layers.')
_SIZE = flags.DEFINE_integer('size', 256, 'Pixels of an image.')
_RATIO = flags.DEFINE_float('ratio', 0.01, 'Share of the patches in the coreset.')
_SMOOTH = flags.DEFINE_float('smooth', 4.0, 'As config.method.smooth.')


def ours(patches: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Anomaly maps [N, h, w] of asked [N, h, w, D], by a bank of normal patches [G, h, w, D]."""
    given = memory_bank.Patcher(lambda params, x: x, (), patches.shape[1:], '')
    bank = memory_bank.choose(given, patches, _RATIO.value, 128, 0)[0]
    judge = lambda params, x, bank: score_patches(given, params, x, bank)['map']
    return memory_bank.over_images(given, judge, asked, bank)


def theirs(patches: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The same by anomalib."""
    import torch
    from anomalib.models.components import KCenterGreedy
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    torch.manual_seed(0)
    dim = patches.shape[-1]
    good = torch.from_numpy(patches.reshape(-1, dim))
    bank = KCenterGreedy(embedding=good, sampling_ratio=_RATIO.value).sample_coreset()
    found = []
    for image in asked:
        dist = PatchcoreModel.euclidean_dist(torch.from_numpy(image.reshape(-1, dim)), bank)
        found.append(dist.min(1).values.numpy().reshape(image.shape[:2]))
    return np.stack(found)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f'unexpected arguments: {argv[1:]}')
    jax.config.update('jax_num_cpu_devices', min(cores(), MAX_CPU_DEVICES))
    fields = configs.defaults('patchcore', 'mvtec').data
    fields.update({'dir': _DIR.value, 'size': _SIZE.value, 'detect_only': True})
    data = configs.find('data', 'mvtec').load(fields)
    patcher = memory_bank.load_patcher(_ENCODER.value, _LAYERS.value, size=_SIZE.value)
    embed = lambda x: memory_bank.over_images(patcher, patcher.apply, x, what='embed')
    good, test = data.roles['good_test'], data.roles['test']
    patches = embed(data.roles['good'].x)
    asked = np.concatenate([embed(good.x), embed(test.x)])
    mask = np.concatenate([np.zeros((len(good.x), *test.mask.shape[1:]), bool), test.mask])
    line: dict[str, float | str] = {'patches': patches[..., 0].size, 'dim': patches.shape[-1]}
    for name, by in (('ours', ours), ('anomalib', theirs)):
        start = time.perf_counter()
        try:
            maps = by(patches, asked)
        except ImportError as e:
            print(f'no peer: {e}; pip install anomalib')
            continue
        line[f'{name}_s'] = round(time.perf_counter() - start, 1)
        image = maps.max((1, 2))
        values = {'image AUROC': area_under(image[len(good.x) :], image[: len(good.x)])}
        values |= pixel_values(enlarge(maps, mask.shape[1:], _SMOOTH.value), mask)
        line |= {f'{name} {n}': round(100 * float(v.mean()), 2) for n, v in values.items()}
    print(json.dumps(line))


if __name__ == '__main__':
    app.run(main)
