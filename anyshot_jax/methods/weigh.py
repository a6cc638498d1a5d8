"""Weights of web images from how like they are to the others of their name.

A learnt similarity (config.method.simnet_from) or, as a baseline, the cosine of the items'
features gives one matrix; `kind` makes weights of it (ops/weighting.py): 'mean' of row and column
(the paper's first phase), 'rows' (its second), 'top' entries only, 'density', or 'votes', which
also looks at the other classes. `bound` then makes all alike that are surely right, and weights
have mean 1 in every class, unless normalise=False. Nothing is trained by steps.

'planted' gives the chance that the label is right, by votes of a similarity that wrong labels
planted among base classes have chosen (data/planted.py). Where no more than `nothing` of the labels
seem wrong, or no more than in clean plantings, all count alike.

It is judged by the AUROC of right against wrong labels, where these are known, before `bound`
makes ties, and by the share of the images of every class that count: (sum w)^2 / (N sum w^2).
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from anyshot_jax.config import check_choices
from anyshot_jax.data import planted
from anyshot_jax.ops import weighting
from anyshot_jax.stages.similarity import KEPT_BACK, Similarity, all_pairs, features_of, novel
from anyshot_jax.types import SCORE, Array, Data, Dataset, InputError, Method, TrainState

REPORT = 'web_weights'
DEFAULTS = {
    'simnet_from': '',  # the stage that learnt the similarity; '': cosine of the items' features
    'kind': 'mean',  # mean | rows | top | density | votes | planted
    'share': 0.5,  # of top
    'quantile': 0.3,  # of density
    'rounds': 5,  # of votes
    'nothing': 0.05,  # of planted: so small a share of wrong labels is none
    'bound': 0.0,  # weights above this share of a high one are alike; 0: all differ
    'power': 1.0,  # of the weights, before they are normalised
    'normalise': True,
}
KINDS = ('mean', 'rows', 'top', 'density', 'votes', 'planted')


def build(config, data):
    """Weights of web images by their similarity.

    Args:
      config: of a run. data: with the roles web and test.
    Returns:
      The Method. Its extra: {}; it exports weight [N].
    Raises:
      InputError: a field that does not fit, or a role or stage that is missing.
    """
    fields = config.method
    _check(config, data)
    sim = Similarity.of(data, fields.simnet_from)
    judge = cache(partial(judge_of, fields, sim, data))

    def init(key, data):
        return TrainState(jnp.zeros((), jnp.int32), {}, (), {})

    def found(data):
        web = data.roles['web']
        if fields.kind == 'planted':
            score, within, more = planted.chances(judge(), sim, web)
            even = more['wrong'] <= max(fields.nothing, judge().best.clean)
            more['even'] = np.array(even)
            counted = np.ones_like(score) if even else score
            return score, weights_of(fields, counted, web), within, more
        score, within = scores(fields, sim, features_of(sim, web.x), web)
        return score, weights_of(fields, score, web), within, {}

    def evaluate(state, data, key, role):
        web = data.roles['web']
        score, weight, _, more = found(data)
        label, num = np.asarray(web.label), len(web.count)
        values = {}
        if web.clean is not None and 0 < int(web.clean.sum()) < len(web.clean):
            even = weighting.normalise(score, web.label, num)
            values['AUROC of the weights'] = weighting.auroc(even, web.clean)[None]
        total = np.bincount(label, weight, num)
        square = np.bincount(label, np.square(weight, dtype=np.float64), num)
        values['images that count'] = total**2 / (np.bincount(label) * np.maximum(square, 1e-12))
        if more:
            values['share of wrong labels, estimated'] = more['wrong'][None]
        return values

    def export(state, data, key):
        score, weight, within, more = found(data)
        return {'weight': weight, 'score': score, 'similarity': within, **more}

    return Method(
        init=init,
        sample=None,
        update=None,
        evaluate=evaluate,
        predict=None,
        embed=lambda state, x: sim.features(sim.params, x),
        similarity=lambda state, a, b: sim.pairs(sim.params, a, b),
        export=export,
        measure=SCORE,
    )


def judge_of(fields, sim: Similarity, data: Data) -> planted.Choice:
    """Judge of the web's labels, chosen on the base classes."""
    learnt = sim if fields.simnet_from else None
    unseen = data.stages[fields.simnet_from].get(KEPT_BACK, ()) if learnt else ()
    return planted.choose(data.roles.get('base'), data.roles['web'], learnt, np.asarray(unseen))


def scores(fields, sim: Similarity, z: Array, web: Dataset) -> tuple[Array, np.ndarray]:
    """Weights by `kind`, from the similarities, before bound, power and normalisation.

    Only 'votes' compares items of different classes: N^2 pairs and as many numbers in memory, the
    others need those of one class at a time.

    Args:
      z: [N, D] features of the web items.
    Returns:
      [N] >= 0, and the similarities within the classes: [N, max(count)], entry k that of the item
      to the k-th of its class, 0 where there is none.
    """
    label, offset, count = (np.asarray(a) for a in (web.label, web.offset, web.count))
    within = np.zeros((len(z), int(count.max())), np.float32)
    if fields.kind == 'votes':
        every = all_pairs(sim, z)
        for at, num in zip(offset, count, strict=True):
            within[at : at + num, :num] = every[at : at + num, at : at + num]
        weights = jax.jit(weighting.vote_weights, static_argnums=(2, 3))
        return weights(every, label, len(count), fields.rounds), within
    score = np.zeros(len(z), np.float32)
    for at, num in zip(offset, count, strict=True):
        rows = slice(at, at + num)
        own = all_pairs(sim, z[rows])
        within[rows, :num] = own
        score[rows] = _of_class(fields, own)
    return jnp.asarray(score), within


def _of_class(fields, sim: Array) -> np.ndarray:
    """[n] from the similarities [n, n] of one class."""
    if fields.kind == 'density':
        return np.asarray(weighting.density(sim, fields.quantile))
    share = fields.share if fields.kind == 'top' else 1.0
    return np.asarray(weighting.mean_similarity(sim, columns=fields.kind != 'rows', share=share))


def weights_of(fields, score: Array, web: Dataset) -> np.ndarray:
    """[N] weights of these scores: bounded, to a power, and with mean 1 in every class."""
    label, num = web.label, len(web.count)
    weight = jnp.asarray(score)
    if fields.bound:
        weight = weighting.bounded(weight, label, num, fields.bound)
    weight = weight**fields.power
    if fields.normalise:
        weight = weighting.normalise(weight, label, num)
    return np.asarray(weight)


def _check(config, data) -> None:
    """Raises InputError for fields that don't fit; names them."""
    fields = config.method
    novel(data, 'weigh')
    if config.num_steps:
        raise InputError('weigh has nothing to train: set config.num_steps=0')
    check_choices(fields, {'kind': KINDS})
    if not 0 < fields.share <= 1 or not 0 <= fields.quantile <= 1:
        raise InputError('config.method.share must be > 0 and <= 1, quantile from 0 to 1')
    if not 0 <= fields.nothing < 1:
        raise InputError(f'config.method.nothing={fields.nothing} must be >= 0 and < 1')
    if fields.kind == 'planted' and len(data.roles['web'].count) < 2:
        raise InputError(
            "config.method.kind='planted' needs two web classes or more: it compares names"
        )
    if fields.rounds < 1 or fields.bound < 0 or fields.power <= 0:
        raise InputError('config.method.rounds must be >= 1, bound >= 0 and power > 0')
