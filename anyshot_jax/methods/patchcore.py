"""PatchCore: which images are not like the normal ones, and where. No defect is ever learnt from.

Roth et al., "Towards total recall in industrial anomaly detection", CVPR 2022. Normal images are
remembered as patches (`memory_bank.py`); a patch is anomalous by its distance to the nearest of
those, an image by its worst patch.

Data have the roles good (to remember), good_test and, of images with defects, test or val.
Values: 'image AUROC', one an image with a defect, the share of normal images that score lower; and
where the data have masks 'pixel AUROC' and 'PRO' (`ops/detection.py`). Without any defect (no role
test): 'false alarms' among normal images, see `defects/detector.py`. Nothing is learnt by steps:
config.num_steps is 0. The state's extra holds the bank [K, D].
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np

from anyshot_jax.config import under
from anyshot_jax.defects import memory_bank
from anyshot_jax.defects.detector import (
    ALARMS,
    AUROC,
    check_images,
    false_alarms,
    judged_roles,
    score_patches,
    told_apart,
)
from anyshot_jax.types import InputError, Method, TrainState

REPORT = 'detection'
DEFAULTS = {
    'encoder': 'efficientnet_lite0',  # encoders.NAMES, FILE or NAME=FILE
    'encoder_dtype': 'float32',  # float32 | bfloat16
    'layers': ('stride8', 'stride16'),  # its maps that patches are made of
    'size': 0,  # pixels of the images' shorter side as the encoder sees them; 0: its own
    'dim': 0,  # numbers a patch, by adaptive pooling (the papers': 1024); 0: all channels
    'ratio': 0.1,  # share of the normal patches to remember
    'projection': 128,  # numbers of the random projection on which these are chosen; 0: none
    'neighbours': 1,  # whose mean distance is a patch's score
    'reweight': 0,  # nearest remembered patches that re-weight an image's score; 0: not
    'smooth': 4.0,  # standard deviation of the Gaussian over the maps, in pixels of the images
}


def build(config, data):
    """Detector by distance to remembered normal patches.

    Args:
      config: of a run. data: images of the roles good, good_test, and test or val.
    Returns:
      The Method. Its extra: 'bank' [K, D], the remembered patches.
    Raises:
      InputError: a field that does not fit, or images that are missing.
    """
    fields = config.method
    _check(config, data)
    # Here and not in init, which is compiled as a whole: the images pass a few at a time.
    with under('config.method', dtype='config.method.encoder_dtype'):
        patcher = _patcher(fields)
        bank = memory_bank.fit(
            patcher,
            data.roles['good'].x,
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
        good, *bad = (
            memory_bank.over_images(
                patcher, scores, data.roles[name].x, state.extra['bank'], what=f'judge {name}'
            )
            for name in judged_roles(data, role)
        )
        if not bad:
            return false_alarms(good['image'], data.roles['good_test'].group)
        return told_apart(good, bad[0], data.roles[role].mask, fields.smooth)

    measure = AUROC if len(judged_roles(data, config.eval.role)) > 1 else ALARMS
    return Method(init, None, None, evaluate, None, None, measure=measure)


def scorer(state: TrainState, data, config) -> tuple[memory_bank.Patcher, Callable]:
    """Patcher of the bank, and the function from images [N, H, W, C] to {'map', 'image'}."""
    fields = config.method
    patcher = _patcher(fields)
    score = partial(score_patches, patcher, k=fields.neighbours, reweight=fields.reweight)
    bank = np.asarray(state.extra['bank'])
    return patcher, lambda x: memory_bank.over_images(patcher, score, x, bank, what='draw')


def _patcher(fields) -> memory_bank.Patcher:
    sizes = {'size': fields.size, 'dim': fields.dim, 'dtype': fields.encoder_dtype}
    return memory_bank.load_patcher(fields.encoder, fields.layers, **sizes)


def _check(config, data) -> None:
    """Says before any work starts what can't be.

    Raises:
      InputError: names the field or role.
    """
    if config.num_steps:
        raise InputError('patchcore has nothing to train: set config.num_steps=0')
    check_images(config, data, ('good', *judged_roles(data, config.eval.role)))
    if config.method.reweight < 0:
        raise InputError('config.method.reweight must be >= 0')
