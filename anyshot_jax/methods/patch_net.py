"""PatchCore beside a net that has learnt synthetic defects: which images have one, and where.

A small net on patches of a frozen encoder (`memory_bank.py`) learns to tell those in synthetic
defects (`data/pseudo.py`) from all others. Defects on images are DRAEM's idea (Zavrtanik,
Kristan, Skocaj, ICCV 2021), a small net on frozen patches SimpleNet's (Liu et al., CVPR 2023); both
together are neither. PatchCore (`patchcore.py`) is asked beside it. A place's score is the sum of
the two maps, each less its mean and over its deviation on normal images that neither has seen.

Data have the roles good, train and val, synthetic defects whose group is the row of their image in
good, good_test and test. The images that val is made on, with their near copies, are held out:
neither remembered nor trained on. Validation tells val from those. Values as of `patchcore`.

The state's extra holds the bank [K, D], the encoder's parameters and what the net's patches are on
normal images.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from anyshot_jax.config import check_choices, under
from anyshot_jax.defects import memory_bank
from anyshot_jax.defects.detector import (
    AUROC,
    SHARES,
    check_images,
    false_alarms,
    judged_roles,
    score_patches,
    told_apart,
)
from anyshot_jax.episodes.optim import build_optimizer
from anyshot_jax.episodes.update import gradient_update
from anyshot_jax.nets.mlp import MLP
from anyshot_jax.ops.patches import upsample
from anyshot_jax.types import Array, Data, InputError, Method, TrainState

REPORT = 'detection'
DEFAULTS = {
    'encoder': 'efficientnet_lite0',  # encoders.NAMES, FILE or NAME=FILE
    'encoder_dtype': 'float32',  # float32 | bfloat16
    'layers': ('stride16', 'stride32'),  # its maps that remembered patches are made of
    'net_layers': ('stride8', 'stride16', 'stride32'),  # those of the net's patches, no coarser
    'hidden': (256, 256),  # units of the net's layers
    'size': 0,  # pixels of the images' shorter side as the encoder sees them; 0: its own
    'dim': 0,  # numbers a patch, by adaptive pooling; 0: all channels
    'ratio': 0.02,  # share of the normal patches to remember
    'projection': 128,  # numbers of the random projection on which these are chosen; 0: none
    'neighbours': 1,  # whose mean distance is a patch's score
    'smooth': 4.0,  # standard deviation of the Gaussian over the maps, in pixels of the images
    'score': 'both',  # both | net | bank: what is judged by
}
DRAWS_WHEN_BUILT = True  # the bank, by config.seed: seeds can't share one program
PARTS = {'both': ('bank', 'net'), 'net': ('net',), 'bank': ('bank',)}
LEAST = 2  # normal images that are held out, and that are not
MEASURED = 64  # normal images by whose patches those of all are standardised


def build(config, data):
    """Detector by remembered patches and a net trained on synthetic defects.

    Args:
      config: of a run. data: images of the roles good, train, val, good_test, and test.
    Returns:
      The Method. Its extra: 'bank' [K, D], 'encoder', its parameters, and 'mean' and 'deviation'
      [D] of normal patches.
    Raises:
      InputError: a field that does not fit, or images that are missing.
    """
    fields = config.method
    check(config, data)
    kept, held = kept_and_held(data)
    good = np.asarray(data.roles['good'].x)
    with under('config.method', dtype='config.method.encoder_dtype'):
        near, fine = patchers(fields)
    if near.shape[0] > fine.shape[0]:
        raise InputError(
            f'config.method.net_layers={tuple(fields.net_layers)} are coarser than config.method.'
            f'layers={tuple(fields.layers)}: name the finest of these there too'
        )
    with under('config.method'):
        bank = memory_bank.fit(
            near, good[kept], ratio=fields.ratio, projection=fields.projection, seed=config.seed
        )
    if fields.neighbours > len(bank):
        raise InputError(
            f'config.method.neighbours={fields.neighbours} can be {len(bank)} at most, the patches '
            f'that config.method.ratio={fields.ratio} leaves'
        )
    mean, deviation = usual_patches(fine, good[kept])
    net = MLP(tuple(fields.hidden), features=1)
    tx = build_optimizer(config.optim, config.num_steps)

    def init(key, data):
        extra = {'bank': bank, 'encoder': fine.params, 'mean': mean, 'deviation': deviation}
        step = jnp.zeros((), jnp.int32)
        if fields.score == 'bank':
            return TrainState(step, {}, (), extra)
        params = net.init(key, jnp.zeros((1, fine.shape[-1])), train=False)['params']
        return TrainState(step, params, tx.init(params), extra)

    def sample(key, data):
        """A synthetic defect and a normal image: [2, H, W, C], and where a defect is [2, H, W]."""
        keys = jax.random.split(key)
        defects, x = data.roles['train'], data.roles['good'].x
        row = jax.random.randint(keys[0], (), 0, len(defects.x))
        normal = jnp.asarray(kept)[jax.random.randint(keys[1], (), 0, len(kept))]
        mask = defects.mask[row]
        return jnp.stack([defects.x[row], x[normal]]), jnp.stack([mask, jnp.zeros_like(mask)])

    def loss(params, extra, batch, key):
        x, mask = batch
        patches = fine.apply(extra['encoder'], x.reshape(-1, *x.shape[2:]))
        logit = logits(net, params, extra, patches)
        label = covered(mask.reshape(-1, *mask.shape[2:]), logit.shape[1:])
        value, right = (
            balanced(of.reshape(len(x), -1), label.reshape(len(x), -1)).mean()
            for of in (
                optax.sigmoid_binary_cross_entropy(logit, label.astype(jnp.float32)),
                ((logit > 0) == label).astype(jnp.float32),
            )
        )
        return value, ({'accuracy': right}, {})

    follow = gradient_update(loss, tx, task_chunk=config.task_chunk)

    def update(state, batch, key):
        after, metrics = follow(state, batch, key)
        # Not through the mean over units and devices, which rounds.
        return after.replace(extra=state.extra), metrics

    def evaluate(state, data, key, role):
        judge = judged(near, fine, net, state, config)
        held_maps = judge(np.asarray(data.roles['good'].x)[held], 'judge normal ones held out')
        usual = usual_maps(held_maps)
        normal_maps = (
            held_maps if role == 'val' else judge(data.roles['good_test'].x, 'judge good_test')
        )
        if len(judged_roles(data, role)) == 1:
            score = summed(normal_maps, usual)['image']
            return false_alarms(score, data.roles['good_test'].group)
        defect_maps = judge(data.roles[role].x, f'judge {role}')
        values = [summed(maps, usual) for maps in (normal_maps, defect_maps)]
        return told_apart(*values, data.roles[role].mask, fields.smooth)

    trained = (None, None) if fields.score == 'bank' else (sample, update)
    measure = AUROC if len(judged_roles(data, config.eval.role)) > 1 else SHARES
    return Method(init, *trained, evaluate, None, None, measure=measure)


def patchers(fields) -> tuple[memory_bank.Patcher, memory_bank.Patcher]:
    """Patchers of the memory bank, and of the net."""
    sizes = {'size': fields.size, 'dim': fields.dim, 'dtype': fields.encoder_dtype}
    near = memory_bank.load_patcher(fields.encoder, fields.layers, **sizes)
    with under('', layers='net_layers'):
        return near, memory_bank.load_patcher(fields.encoder, fields.net_layers, **sizes)


def kept_and_held(data: Data) -> tuple[Array, Array]:
    """Rows of good to remember and train on; and those held out, near copies of val's images."""
    good = data.roles['good']
    group = np.arange(len(good.x)) if good.group is None else np.asarray(good.group)
    held = np.isin(group, group[np.asarray(data.roles['val'].group)])
    return np.flatnonzero(~held), np.flatnonzero(held)


def usual_patches(patcher: memory_bank.Patcher, good: Array) -> tuple[Array, Array]:
    """Mean and deviation [D] of the patches of normal images [N, H, W, C], of MEASURED at most."""
    rows = np.unique(np.linspace(0, len(good) - 1, MEASURED).astype(int))

    def moments(params, x):
        patches = patcher.apply(params, x)
        return patches.mean((1, 2)), jnp.square(patches).mean((1, 2))

    sums = memory_bank.over_images(patcher, moments, good[rows], what='measure')
    mean, square = (np.asarray(m, np.float64).mean(0) for m in sums)
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    # A channel that is always the same says nothing.
    deviation = np.where(deviation > 1e-6, deviation, 1)
    return mean.astype(np.float32), deviation.astype(np.float32)


def logits(net, params, extra, patches: Array) -> jax.Array:
    """[N, h, w], above 0 where the net takes a patch [N, h, w, D] for one of a defect."""
    x = patches.reshape(-1, patches.shape[-1])
    x = (x - extra['mean'][None]) / extra['deviation'][None]
    return net.apply({'params': params}, x, train=False).reshape(patches.shape[:-1])


def covered(mask: Array, shape: Sequence[int]) -> jax.Array:
    """[N, *shape] bool: the cells that share some area with a defect, mask [N, H, W] bool."""
    rows, columns = (_shares(old, new) for old, new in zip(mask.shape[1:], shape, strict=True))
    share = jnp.einsum('ij,njk,lk->nil', rows, mask.astype(jnp.float32), columns)
    return share > 1e-6


def _shares(old: int, new: int) -> Array:
    """[new, old] float32: which share of each of `new` equal parts of an axis is in each of old."""
    edges = [np.arange(n + 1) / n for n in (new, old)]
    inner = np.minimum(edges[0][1:, None], edges[1][None, 1:])
    outer = np.maximum(edges[0][:-1, None], edges[1][None, :-1])
    return (np.maximum(inner - outer, 0) * new).astype(np.float32)


def balanced(values: Array, label: Array) -> jax.Array:
    """[B]: a half the mean of values [B, P] where the label [B, P] holds, and a half elsewhere.

    Small defects and large ones count the same.
    """
    mean = lambda weight: (weight * values).sum(1) / jnp.maximum(weight.sum(1), 1)
    return (mean(label.astype(jnp.float32)) + mean(1 - label.astype(jnp.float32))) / 2


def judged(near, fine, net, state: TrainState, config) -> Callable:
    """(images, what to say) -> 'bank', 'net': the maps [N, h, w] that config.method.score asks.

    All have the places of the net's patches.
    """
    names, k = PARTS[config.method.score], config.method.neighbours

    def parts(params, x, bank, of_net):
        maps = {}
        if 'net' in names:
            maps['net'] = logits(net, of_net['params'], of_net, fine.apply(params, x))
        if 'bank' in names:
            dist = score_patches(near, params, x, bank, k=k)['map']
            maps['bank'] = upsample(dist[..., None], fine.shape[:2])[..., 0]
        return maps

    of_net = {name: state.extra[name] for name in ('mean', 'deviation')} | {'params': state.params}
    constants = jax.tree.map(np.asarray, (state.extra['bank'], of_net))
    return lambda x, what: memory_bank.over_images(fine, parts, x, *constants, what=what)


def usual_maps(maps: dict[str, Array]) -> dict[str, tuple[float, float]]:
    """Mean and deviation of each map's values on normal images."""
    return {name: (float(m.mean()), max(float(m.std()), 1e-6)) for name, m in maps.items()}


def summed(maps: dict[str, Array], usual: dict[str, tuple[float, float]]) -> dict[str, Array]:
    """'map' [N, h, w], the sum of the standardised maps, and 'image' [N], its largest."""
    total = sum((m - usual[name][0]) / usual[name][1] for name, m in maps.items())
    return {'map': total, 'image': total.max((1, 2))}


def scorer(state: TrainState, data: Data, config) -> tuple[memory_bank.Patcher, Callable]:
    """`patchcore.scorer` for both detectors together."""
    near, fine = patchers(config.method)
    judge = judged(near, fine, MLP(tuple(config.method.hidden), features=1), state, config)
    held = np.asarray(data.roles['good'].x)[kept_and_held(data)[1]]
    usual = usual_maps(judge(held, 'judge normal ones held out'))
    return near, lambda x: summed(judge(x, 'draw'), usual)


def check(config, data) -> None:
    """Says before any work starts what can't be.

    Raises:
      InputError: names the field or role.
    """
    fields = config.method
    check_choices(fields, {'score': PARTS})
    if not config.num_steps and fields.score != 'bank':
        raise InputError(
            f'patch_net with config.method.score={fields.score!r} learns by steps: set '
            "config.num_steps above 0, or score='bank', which needs none"
        )
    if config.num_steps and fields.score == 'bank':
        raise InputError("config.method.score='bank' has nothing to train: set config.num_steps=0")
    check_images(config, data, ('good', 'train', 'val', *judged_roles(data, config.eval.role)))
    if not fields.hidden or min(fields.hidden) < 1:
        raise InputError(
            f'config.method.hidden={tuple(fields.hidden)}: need one width of units or more, each '
            'at least 1'
        )
    for role in ('train', 'val'):
        if data.roles[role].mask is None or data.roles[role].group is None:
            raise InputError(
                f'patch_net needs to know where the defects of {role} are and on which good '
                'images they were made: use synthetic ones, config.data.pseudo.classes=40'
            )
    kept, held = kept_and_held(data)
    if np.isin(np.asarray(data.roles['train'].group), held).any():
        raise InputError(
            'train and val are made on the same normal images, so none are held out: set '
            'config.data.pseudo.held_out=0.1'
        )
    if min(len(kept), len(held)) < LEAST:
        raise InputError(
            f'of {len(kept) + len(held)} normal images {len(held)} are held out and {len(kept)} '
            f'are not: patch_net needs {LEAST} of both or more, more normal images or another '
            'config.data.pseudo.held_out'
        )
