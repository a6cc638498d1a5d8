"""Shared parts of methods that synthesise class features from descriptions."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from anyshot_jax.ops.colour import COLOURS
from anyshot_jax.ops.distance import unit
from anyshot_jax.ops.metric import harmonic_mean
from anyshot_jax.ops.product import product
from anyshot_jax.ops.prototype import class_means
from anyshot_jax.ops.transport import sinkhorn
from anyshot_jax.runtime import bars
from anyshot_jax.stages.left_out import (
    Choice,
    choose,
    cut,
    fixed,
    joined_words,
    mixture,
    named_colours,
    said,
    standardised,
)
from anyshot_jax.types import ACCURACY, TEST_SEEN, Array, Data, Dataset, InputError, Method

say = cache(bars.say)  # a line once: the report exports again
FIELDS = {
    # True: weight of colours, penalty and calibration are chosen in the run by leaving seen classes
    # out (stages/left_out.py), from these on. False: they are as given here.
    'choose': True,
    'colours': 0.5,  # weight of the colours among features that end in them; 0: not looked at
    'penalty': 1.0,  # of the ridge regression from words to class means
    'standardise': True,  # similarities to each centre are made alike over the seen images
    'synthesised': 20,  # features of each class handed to the next stage
    'calibration': 0.0,  # taken from the scores of seen classes (calibrated stacking)
}


def weigh(x: Array, colours: Array | float, has_colours: bool) -> Array:
    """Features whose products are similarities: the main part and `colours` times the last one.

    Args:
      x: [..., D], the last 11 shares of colours if has_colours.
    Returns:
      [..., D] of length 1.
    """
    if not has_colours:
        return unit(x)
    main, rest = jnp.split(x, [x.shape[-1] - len(COLOURS)], axis=-1)
    return unit(jnp.concatenate([unit(main), colours * unit(rest)], -1))


def has_colours(data: Data) -> bool:
    """True if the classes have words for colours; the features then end in shares of them."""
    return 'colours' in data.roles['train'].extras


def settings(config: ConfigDict, data: Data) -> Choice:
    """Weight of colours, penalty and calibration: chosen by the seen classes, or as given.

    What the stage of the features exports about new items (`methods/lda.py`) is heeded.
    """
    fields, likeness = config.method, data.stages.get(config.features_from, {}).get('likeness', 1.0)
    train, new = data.roles['train'], data.roles.get('test', data.roles['train'])
    start = fixed(fields.colours, fields.penalty, fields.calibration, len(train.count))
    return choose(train, len(new.count), start, likeness) if fields.choose else start


def predict_means(data: Data, dataset: Dataset, colours: Array, penalty: Array) -> jax.Array:
    """Means of the dataset's classes, predicted from their descriptions: [C, D].

    Ridge regression from the words of the training classes A (centred, of length 1) to the means of
    their features M: A' (A A' + penalty I)^-1 M. A class's colours are not learnt but looked up:
    those its description names, with one slope for all eleven that the training classes give.

    Args:
      colours: their weight; at 0 the words don't say them either.
    """
    train = data.roles['train']
    means = class_means(train.x, train.label, len(train.count))
    mix = mixture(joined_words(train, colours), joined_words(dataset, colours), penalty)
    predicted = product(mix, means)
    if 'colours' not in train.extras:
        return predicted
    main, shown = cut(means, True)
    named = named_colours(shown, train.extras['colours'], dataset.extras['colours'])
    return jnp.concatenate([predicted[:, : main.shape[1]], named], 1)


def similarity(
    x: Array, centres: Array, seen: Dataset, colours: Array, coloured: bool, standardise: bool
) -> Array:
    """[N, C] of items to class centres made from words, both as features.

    Cosines of the main parts, standardised by the seen classes' images or not, and of the colours,
    as `weigh` weighs them.
    """
    main, rest = (unit(a) for a in cut(x, coloured))
    centre, named = (unit(a) for a in cut(centres, coloured))
    sim = product(main, centre.T)
    if standardise:
        among = product(unit(cut(seen.x, coloured)[0]), centre.T)
        sim = standardised(sim, among, seen.label >= 0)
    return (sim + colours**2 * product(rest, named.T)) / (1 + colours**2)


def check(config: ConfigDict, data: Data) -> None:
    """Says before any work starts what is missing.

    Raises:
      InputError: images instead of features, classes without a vector, or a class without a
        description where others have one (named).
    """
    for role, dataset in data.roles.items():
        if dataset.x.ndim != 2:
            raise InputError(
                f'config.method.name={config.method.name!r} makes features, but the {role} items '
                f'are {dataset.x.shape[1:]}: set config.encoder or config.features_from'
            )
        if 'attribute' not in dataset.extras:
            raise InputError(
                f'the {role} classes have no vectors: set config.describe.by, e.g. to tfidf'
            )
        silent = [n for n, t in zip(dataset.names, dataset.texts, strict=False) if not t.strip()]
        if silent:
            raise InputError(
                f'{role} class {silent[0]!r} has no description ({len(silent)} of '
                f'{len(dataset.names)} in this role), and none can be made up for: add it to '
                'classes.json, or remove all descriptions to go by the names'
            )


def synthesiser(
    config: ConfigDict,
    data: Data,
    *,
    synthesise: Callable,
    centres: Callable,
    init: Callable,
    sample: Callable | None = None,
    update: Callable | None = None,
) -> Method:
    """A Method from what differs.

    It is judged by 'zero-shot', the accuracy of every class of a role among them, the nearest mean
    of what was made for it by cosine, and 'zero-shot, balanced', which knows all queries and that
    there are equally many of each class (transductive). With held-out items of the seen classes
    (role test_seen) also by 'seen', 'unseen' and their 'harmonic mean' among all classes.

    Args:
      synthesise: (state, data, key, dataset, count) -> [C, count, D] for the dataset's classes.
      centres: (state, data, key, dataset) -> [C, D] likewise, what items are compared with.
      init: (key, data) -> TrainState, whose extra has 'choice', the `settings`.
      sample, update: as `Method` has them, None: nothing to train.
    Raises:
      InputError: see `check`.
    """
    check(config, data)
    fields, coloured = config.method, has_colours(data)
    if config.num_steps and update is None:
        raise InputError(f'{fields.name} has nothing to train: set config.num_steps=0')

    def of_words(state, data, key, dataset, x):
        made, colours = centres(state, data, key, dataset), state.extra['choice'].colours
        how = {'coloured': coloured, 'standardise': fields.standardise}
        return similarity(x, made, data.roles['train'], colours, **how)

    def per_class(chosen, dataset):
        right = (chosen == dataset.label).astype(jnp.float32)
        return class_means(right[:, None], dataset.label, len(dataset.count))[:, 0]

    @jax.jit
    def zero_shot(state, data, key, dataset):
        sim = of_words(state, data, key, dataset, dataset.x)
        there, num = (dataset.label >= 0).astype(jnp.float32), len(dataset.count)
        plan, _ = sinkhorn(-sim, there, jnp.full(num, there.sum() / num))
        return {
            'zero-shot': per_class(jnp.argmax(sim, 1), dataset),
            'zero-shot, balanced': per_class(jnp.argmax(plan, 1), dataset),
        }

    @jax.jit
    def generalised(state, data, key, novel, roles):
        """Seen classes go by the means of their images, novel ones by what was made for them."""
        held_out, x, label, start = data.roles[TEST_SEEN], [], [], 0
        for known in roles:
            x, label, start = [*x, known.x], [*label, known.label + start], start + len(known.count)
        choice = state.extra['choice']
        means = class_means(jnp.concatenate(x), jnp.concatenate(label), start)
        weighed = lambda x: weigh(x, choice.colours, coloured)

        def answer(x):
            sim = product(weighed(x), weighed(means).T) - choice.calibration
            made = of_words(state, data, key, novel, x)
            return jnp.argmax(jnp.concatenate([sim, made], 1), 1)

        seen = per_class(answer(held_out.x), held_out)[:start]  # in the order of `roles`
        unseen = per_class(answer(novel.x) - start, novel)
        both = harmonic_mean(seen.mean(), unseen.mean())
        return {'seen': seen, 'unseen': unseen, 'harmonic mean': both[None]}

    def evaluate(state, data, key, role):
        given = Data(data.roles)  # not what earlier stages exported
        values = zero_shot(state, given, key, given.roles[role])
        values = {name: values[name] for name in ('zero-shot', 'zero-shot, balanced')}
        if TEST_SEEN in given.roles:
            roles = [given.roles[r] for r in ('train', 'val') if r in given.roles and r != role]
            found = generalised(state, given, key, given.roles[role], roles)
            values |= {name: found[name] for name in ('seen', 'unseen', 'harmonic mean')}
        return values

    def export(state, data, key):
        given = Data(data.roles)  # not what earlier stages exported
        made = jax.jit(synthesise, static_argnums=4)
        if fields.choose and not jax.process_index():
            say(f'{fields.name}: {said(state.extra["choice"])}')
        items = {r: made(state, given, key, d, fields.synthesised) for r, d in given.roles.items()}
        return {**items, 'colours': state.extra['choice'].colours}

    return Method(
        init=init,
        sample=sample,
        update=update,
        evaluate=evaluate,
        predict=None,
        embed=lambda state, x: weigh(x, state.extra['choice'].colours, coloured),
        export=export,
        measure=ACCURACY,
    )
