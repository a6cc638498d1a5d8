"""Shared parts of methods that synthesise class features from descriptions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from anyshot_jax.ops.colour import COLOURS
from anyshot_jax.ops.distance import unit
from anyshot_jax.ops.metric import harmonic_mean
from anyshot_jax.ops.product import product
from anyshot_jax.ops.prototype import class_means
from anyshot_jax.ops.transport import sinkhorn
from anyshot_jax.types import ACCURACY, TEST_SEEN, Array, Data, Dataset, InputError, Method

FIELDS = {
    'colours': 1.0,  # weight of the colours among features that end in them; 0: not looked at
    'synthesised': 20,  # features of each class handed to the next stage
    'calibration': 0.0,  # taken from the scores of seen classes (calibrated stacking)
}


def weigh(x: Array, colours: float, has_colours: bool) -> Array:
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


def words(dataset: Dataset) -> Array:
    """Class descriptions as vectors [C, A], with [C, 11] colours joined to them if there are."""
    parts = [unit(dataset.extras['attribute'])]
    if 'colours' in dataset.extras:
        parts.append(unit(dataset.extras['colours']))
    return jnp.concatenate(parts, 1)


def predict_means(data, dataset, penalty: float) -> jax.Array:
    """Means of the dataset's classes, predicted from their descriptions: [C, D].

    Ridge regression from the words of the training classes A (centred, of length 1) to the means of
    their features M: A' (A A' + penalty I)^-1 M. A class's colours are not learnt but looked up:
    those its description names, with one slope for all eleven that the training classes give.
    """
    train = data.roles['train']
    means = class_means(train.x, train.label, len(train.count))
    of_train, of_asked = words(train), words(dataset)
    middle, mean = of_train.mean(0, keepdims=True), means.mean(0, keepdims=True)
    of_train, of_asked = unit(of_train - middle), unit(of_asked - middle)
    gram = product(of_train, of_train.T) + penalty * jnp.eye(len(of_train))
    slopes = jnp.linalg.solve(gram, means - mean)
    predicted = mean + product(product(of_asked, of_train.T), slopes)
    if 'colours' not in train.extras:
        return predicted
    colours = lambda d: d.extras['colours'] - train.extras['colours'].mean(0, keepdims=True)
    image_colours, named_colours = means[:, -len(COLOURS) :], colours(train)
    slope = jnp.sum(named_colours * image_colours) / jnp.maximum(
        jnp.sum(named_colours * named_colours), 1e-12
    )
    return jnp.concatenate([predicted[:, : -len(COLOURS)], slope * colours(dataset)], 1)


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
      init: (key, data) -> TrainState. sample, update: as `Method` has them, None: nothing to train.
    Raises:
      InputError: see `check`.
    """
    check(config, data)
    fields, coloured = config.method, has_colours(data)
    if config.num_steps and update is None:
        raise InputError(f'{fields.name} has nothing to train: set config.num_steps=0')

    def centres(state, data, key, dataset):
        made = synthesise(state, data, key, dataset, 100)
        return weigh(made.mean(1), fields.colours, coloured)

    def per_class(chosen, dataset):
        right = (chosen == dataset.label).astype(jnp.float32)
        return class_means(right[:, None], dataset.label, len(dataset.count))[:, 0]

    @jax.jit
    def zero_shot(state, data, key, dataset):
        x = weigh(dataset.x, fields.colours, coloured)
        sim = product(x, centres(state, data, key, dataset).T)
        share = jnp.full(len(dataset.count), len(x) / len(dataset.count))
        plan, _ = sinkhorn(-sim, jnp.ones(len(x)), share)
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
        means = class_means(jnp.concatenate(x), jnp.concatenate(label), start)
        means = weigh(means, fields.colours, coloured)
        every = jnp.concatenate([means, centres(state, data, key, novel)])
        less = jnp.concatenate([jnp.full(start, fields.calibration), jnp.zeros(len(novel.count))])
        answer = lambda x: jnp.argmax(
            product(weigh(x, fields.colours, coloured), every.T) - less[None], 1
        )
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
        return {r: made(state, given, key, d, fields.synthesised) for r, d in given.roles.items()}

    return Method(
        init=init,
        sample=sample,
        update=update,
        evaluate=evaluate,
        predict=None,
        embed=lambda state, x: weigh(x, fields.colours, coloured),
        export=export,
        measure=ACCURACY,
    )
