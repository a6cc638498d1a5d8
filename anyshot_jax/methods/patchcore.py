"""PatchCore: which pictures are not like the good ones, and where. No defect is ever learnt from.

Roth et al., "Towards total recall in industrial anomaly detection", CVPR 2022. Good pictures are
remembered as patches (`memory_bank.py`); a patch is anomalous by its distance to the nearest of
those, a picture by its worst patch.

Data have the roles good (to remember), good_test and, of pictures with defects, test or val.
Values: 'image AUROC', one a picture with a defect, the share of the good ones that score lower; and
where the data have masks 'pixel AUROC' and 'PRO' (`ops/detection.py`). Nothing is learnt by steps:
config.num_steps is 0. The state's extra holds the bank [K, D].
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from anyshot_jax import memory_bank
from anyshot_jax.ops.detection import area_under, enlarge, pixel_values
from anyshot_jax.types import Array, InputError, Measure, Method, TrainState

DEFAULTS = {
    'encoder': 'efficientnet_lite0',  # encoders.NAMES, FILE or NAME=FILE
    'encoder_dtype': 'float32',  # float32 | bfloat16
    'layers': ('stride8', 'stride16'),  # its maps that patches are made of
    'size': 0,  # pixels of the pictures' shorter side as the encoder sees them; 0: its own
    'dim': 0,  # numbers a patch, by adaptive pooling (the papers': 1024); 0: all channels
    'ratio': 0.1,  # share of the good patches to remember
    'projection': 128,  # numbers of the random projection on which these are chosen; 0: none
    'neighbours': 1,  # whose mean distance is a patch's score
    'reweight': 0,  # nearest remembered patches that re-weight a picture's score; 0: not
    'smooth': 4.0,  # standard deviation of the Gaussian over the maps, in pixels of the pictures
}
AUROC = Measure('area under the curve', percent=True, larger_is_better=True)


def build(config, data):
    fields = config.method
    _check(config, data)
    patcher = memory_bank.load_patcher(
        fields.encoder, fields.layers, size=fields.size, dim=fields.dim, dtype=fields.encoder_dtype
    )
    # Here and not in init, which is compiled as a whole: the pictures pass a few at a time.
    bank = memory_bank.fit(
        patcher,
        data['good'].x,
        ratio=fields.ratio,
        projection=fields.projection,
        seed=config.seed,
    )
    most = max(fields.neighbours, fields.reweight)
    if most > len(bank):
        raise InputError(
            f'config.method.neighbours={fields.neighbours} and reweight={fields.reweight} can be '
            f'{len(bank)} at most, the patches that config.method.ratio={fields.ratio} leaves'
        )
    scores = partial(score_patches, patcher, k=fields.neighbours, reweight=fields.reweight)

    def init(key, data):
        return TrainState(jnp.zeros((), jnp.int32), {}, (), {'bank': bank})

    def evaluate(state, data, key, role):
        good, bad = (
            memory_bank.over_pictures(
                patcher, scores, data[name].x, state.extra['bank'], what=f'judge {name}'
            )
            for name in ('good_test', role)
        )
        return told_apart(good, bad, data[role].mask, fields.smooth)

    return Method(init, None, None, evaluate, None, None, measure=AUROC)


def score_patches(
    patcher: memory_bank.Patcher,
    params,
    pictures: Array,
    bank: Array,
    *,
    k: int = 1,
    reweight: int = 0,
) -> dict[str, jax.Array]:
    """Anomaly scores of pictures, for use inside jit.

    Args:
      pictures: [N, H, W, C] uint8. bank: [K, D]. k: nearest patches whose mean distance counts.
      reweight: b of the paper's equation 7, the nearest in the bank (itself included) of the
        patch that is nearest to the picture's worst; 0: its score stays as it is.
    Returns:
      'map' [N, h, w], distances; 'image' [N], the largest, times 1 - exp(d*) / sum exp(d_m) over
      those b, d_m the distances from the worst patch to them.
    """
    patches = patcher.apply(params, pictures)
    dist, row = memory_bank.nearest_patches(bank, patches, k)
    maps = jnp.sqrt(dist).mean(-1)
    flat = maps.reshape(len(maps), -1)
    worst = flat.argmax(1)
    image = flat.max(1)
    if reweight:
        pick = lambda a: a.reshape(len(maps), -1, a.shape[-1])[jnp.arange(len(maps)), worst]
        patch, near = pick(patches), pick(row)[:, 0]
        around = bank[memory_bank.nearest_patches(bank, bank[near], reweight)[1]]
        d = jnp.linalg.norm(patch[:, None] - around, axis=-1)
        # Among equal patches of the bank the nearest may not be listed, so it is put in front.
        own = jnp.linalg.norm(patch - bank[near], axis=-1)
        total = jax.nn.logsumexp(d, axis=1)
        image = image * -jnp.expm1(jnp.minimum(own - total, 0))
    return {'map': maps, 'image': image}


def told_apart(good: dict, bad: dict, mask: Array | None, smooth: float) -> dict[str, Array]:
    """The values of pictures without and with a defect.

    Args:
      good, bad: 'image' [N], 'map' [N, h, w]. mask: [N, H, W] bool of the bad ones, or none.
      smooth: as config.method.smooth.
    """
    values = {'image AUROC': area_under(bad['image'], good['image'])}
    if mask is not None:
        shape = mask.shape[1:]
        maps = [enlarge(found['map'], shape, smooth) for found in (good, bad)]
        none = np.zeros((len(maps[0]), *shape), bool)
        values |= pixel_values(np.concatenate(maps), np.concatenate([none, mask]))
    return {name: v for name, v in values.items() if len(v)}


def scorer(state: TrainState, data, config) -> tuple[memory_bank.Patcher, Callable]:
    """What the bank's patches are made by, and pictures [N, H, W, C] -> {'map', 'image'}."""
    fields = config.method
    patcher = memory_bank.load_patcher(
        fields.encoder, fields.layers, size=fields.size, dim=fields.dim, dtype=fields.encoder_dtype
    )
    score = partial(score_patches, patcher, k=fields.neighbours, reweight=fields.reweight)
    bank = np.asarray(state.extra['bank'])
    return patcher, lambda x: memory_bank.over_pictures(patcher, score, x, bank, what='draw')


def _check(config, data) -> None:
    """Says before any work starts what can't be.

    Raises:
      InputError: names the field or role.
    """
    if config.num_steps:
        raise InputError('patchcore has nothing to train: set config.num_steps=0')
    check_pictures(config, data, ('good', 'good_test', config.eval.role))
    if config.method.reweight < 0:
        raise InputError('config.method.reweight must be >= 0')


def check_pictures(config, data, roles: Sequence[str]) -> None:
    """Refuses (InputError) other items than pictures, a role that is missing, fields out of range.

    Args:
      roles: what the method needs.
    """
    fields, name = config.method, config.method.name
    if config.encoder or config.features_from:
        raise InputError(
            f'{name} has an encoder of its own, config.method.encoder: leave config.encoder and '
            'config.features_from empty'
        )
    for role in roles:
        if role not in data:
            raise InputError(
                f'{name} needs the role {role!r}, but config.data.name={config.data.name!r} '
                f'gives {", ".join(data)}: good and good_test are pictures without a defect'
            )
        if data[role].x.ndim != 4 or data[role].x.dtype != np.uint8:
            raise InputError(
                f'{name} looks at pictures, but the {role} items are {data[role].x.dtype} '
                f'{data[role].x.shape[1:]}'
            )
    if fields.neighbours < 1 or fields.smooth < 0:
        raise InputError('config.method.neighbours must be >= 1 and config.method.smooth >= 0')
