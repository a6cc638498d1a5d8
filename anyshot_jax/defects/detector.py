"""Parts that detectors share: distances of patches from normal ones, and their evaluation."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from anyshot_jax.defects import memory_bank
from anyshot_jax.ops.calibration import fit_threshold
from anyshot_jax.ops.detection import area_under, enlarge, pixel_values
from anyshot_jax.types import Array, Data, InputError, Measure

AUROC = Measure('area under the curve', percent=True, larger_is_better=True)
ALARMS = Measure('false alarms', percent=True, larger_is_better=False)
SHARES = Measure('share', percent=True, larger_is_better=True)  # areas and false alarms in one run
FALSE_ALARM = 0.01  # share of normal images that a threshold is asked for


def score_patches(
    patcher: memory_bank.Patcher,
    params,
    images: Array,
    bank: Array,
    *,
    k: int = 1,
    reweight: int = 0,
) -> dict[str, jax.Array]:
    """Anomaly scores of images, for use inside jit.

    Args:
      images: [N, H, W, C] uint8. bank: [K, D]. k: nearest patches whose mean distance counts.
      reweight: b of the paper's equation 7, the nearest in the bank (itself included) of the
        patch that is nearest to the image's worst; 0: its score stays as it is.
    Returns:
      'map' [N, h, w], distances; 'image' [N], the largest, times 1 - exp(d*) / sum exp(d_m) over
      those b, d_m the distances from the worst patch to them.
    """
    patches = patcher.apply(params, images)
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
        nearest_dist = jnp.linalg.norm(patch - bank[near], axis=-1)
        total = jax.nn.logsumexp(d, axis=1)
        image = image * -jnp.expm1(jnp.minimum(nearest_dist - total, 0))
    return {'map': maps, 'image': image}


def told_apart(good: dict, bad: dict, mask: Array | None, smooth: float) -> dict[str, Array]:
    """The values of images without and with a defect.

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


def false_alarms(score: Array, group: Array | None) -> dict[str, Array]:
    """False alarms among normal images, where there is no defect to measure on.

    Each half of their groups, every other one, is judged by the threshold that the other half sets
    for FALSE_ALARM: few images set their largest score.

    Args:
      score: [N] of normal images that weren't remembered. group: [N], equal for near copies.
    Returns:
      'false alarms' [N] float64, 1 or 0.
    Raises:
      InputError: a single group, which sets no threshold.
    """
    _, which = np.unique(np.arange(len(score)) if group is None else group, return_inverse=True)
    halves = [which % 2 == i for i in (0, 1)]
    if not halves[1].any():
        raise InputError(
            f'there is no defect and {len(score)} normal image{"s" * (len(score) > 1)} of one '
            'group to judge, which set no threshold: add normal images, or some with a defect'
        )
    called = np.zeros(len(score))
    for judged, own in zip(halves, halves[::-1], strict=True):
        called[judged] = -score[judged] < fit_threshold(-score[own], FALSE_ALARM)[0]
    return {'false alarms': called}


def judged_roles(data: Data, role: str) -> tuple[str, ...]:
    """The roles to judge: without the role test, in data without any defect, normal images only."""
    return ('good_test',) if role == 'test' and role not in data.roles else ('good_test', role)


def check_images(config, data, roles: Sequence[str]) -> None:
    """Refuses (InputError) other items than images, a role that is missing, fields out of range.

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
        if role not in data.roles:
            raise InputError(
                f'{name} needs the role {role!r}, but config.data.name={config.data.name!r} '
                f'gives {", ".join(data.roles)}: good and good_test are images without a defect'
            )
        if data.roles[role].x.ndim != 4 or data.roles[role].x.dtype != np.uint8:
            raise InputError(
                f'{name} looks at images, but the {role} items are {data.roles[role].x.dtype} '
                f'{data.roles[role].x.shape[1:]}'
            )
    if fields.neighbours < 1 or fields.smooth < 0:
        raise InputError('config.method.neighbours must be >= 1 and config.method.smooth >= 0')
