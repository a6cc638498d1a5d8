"""A net pretrained by naming the base classes: the first stage where no encoder is frozen.

Plain cross-entropy over all classes of the role `base`. The next stage starts from its net
(config.method.start_from) and not from its head.
"""

from functools import partial

import jax
import jax.numpy as jnp

from anyshot_jax.episodes import augment
from anyshot_jax.episodes.episodic import EMBED_CHUNK, cross_entropy
from anyshot_jax.episodes.optim import build_optimizer
from anyshot_jax.episodes.update import gradient_update
from anyshot_jax.ops.product import product
from anyshot_jax.runtime.devices import map_rows
from anyshot_jax.stages.handover import export_net
from anyshot_jax.stages.similarity import backbone, novel
from anyshot_jax.types import InputError, Method, TrainState

DEFAULTS = {'role': 'base'}  # web: the paper's warm-up, on wrong labels


def build(config, data):
    """Classifier of the classes of one role, for its net.

    Args:
      config: of a run. data: with the roles web and test, and config.method.role.
    Returns:
      The Method. Its extra: the net's batch statistics.
    Raises:
      InputError: the role is missing.
    """
    fields, augmentation = config.method, config.augment.to_dict()
    novel(data, 'pretrain')
    if fields.role not in data.roles:
        raise InputError(
            f'config.method.role={fields.role!r}: the data have {", ".join(data.roles)}'
        )
    net, num = backbone(config.net, 'pretrain'), len(data.roles[fields.role].count)
    tx = build_optimizer(config.optim, config.num_steps)
    tests = {'base': 'test_base', 'web': 'test'}

    def init(key, data):
        keys = jax.random.split(key)
        x = data.roles[fields.role].x[:2]
        params, stats = net.init(keys[0], x)
        width = jax.eval_shape(lambda x: net.apply(params, stats, x, 'inductive')[0], x).shape[-1]
        kernel = jax.nn.initializers.lecun_normal()(keys[1], (width, num))
        params = {'net': params, 'head': {'kernel': kernel, 'bias': jnp.zeros(num)}}
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), stats)

    def sample(key, data):
        dataset, keys = data.roles[fields.role], jax.random.split(key)
        row = jax.random.randint(keys[0], (), 0, dataset.x.shape[0])
        x = dataset.x[row]
        if any(augmentation.values()):
            x = augment.affine(keys[1], x[None], **augmentation)[0]
        return x, dataset.label[row]

    def scores(params, stats, x, mode):
        z, stats = net.apply(params['net'], stats, x, mode)
        return product(z, params['head']['kernel']) + params['head']['bias'][None], stats

    def loss(params, stats, batch, key):
        x, y = batch
        logits, stats = scores(params, stats, x, 'train')
        value, metrics = cross_entropy(logits, y)
        return value, (metrics, stats)

    chunk = jax.jit(lambda state, x: scores(state.params, state.extra, x, 'inductive')[0])

    def evaluate(state, data, key, role):
        # Without clean images of these classes it can only tell how well it fits.
        judged = data.roles.get(tests.get(fields.role, ''), data.roles[fields.role])
        answers = map_rows(partial(chunk, state), judged.x, size=EMBED_CHUNK)
        name = 'accuracy' if judged is not data.roles[fields.role] else 'accuracy in training'
        return {name: (jnp.argmax(answers, 1) == judged.label).astype(jnp.float32)}

    return Method(
        init=init,
        sample=sample,
        # All items of a batch at once: batch norm looks at them together.
        update=gradient_update(loss, tx, task_chunk=max(config.batch_size, 1)),
        evaluate=evaluate,
        predict=None,
        embed=lambda state, x: net.apply(state.params['net'], state.extra, x, 'inductive')[0],
        export=lambda state, data, key: export_net(
            config.net, {'net': state.params['net']}, {'net': state.extra}
        ),
    )
