"""Every method of the contract on tiny images: its states, its compiled steps, its answers."""

import pkgutil
from functools import cached_property, partial

import jax
import numpy as np

from anyshot_jax import config as configs
from anyshot_jax import methods
from anyshot_jax.episodes import sampling
from anyshot_jax.training.step import make_step
from anyshot_jax.types import Data, InputError, from_arrays

KEY = jax.random.key(11)
WAYS = 3
SMALL = {'features': 8, 'blocks': 2, 'pools': (True, False), 'padding': ('SAME', 'SAME')}
# Tried in turn until one suits the method: no net, flat features, maps of features, pairs.
NETS = (('', {}), ('conv4', SMALL), ('conv4', {**SMALL, 'flatten': False}),
        ('pair_relation', {'widths': (8, 8), 'hidden': 8}))  # fmt: skip
# Besides the defaults of every file.
VARIANTS = {
    'matching': [{'full_context': 2}],
    'knn': [{'distance': 'cosine'}],
    'maml': [{'head': 'zero', 'inner_steps': 2, 'learn_lr': 'step_layer'}],
}
# Fewer steps than the defaults, for speed.
SHORT = {'reptile': {'inner_steps': 3, 'eval_steps': 3}, 'imaml': {'inner_steps': 3}}
# These have tests of their own: one is for functions and knows no classes, two make features, four
# are stages of weak-shot learning, two find defects and name no class.
OTHERS = {
    'maml_regression', 'ridge', 'generator', 'pretrain', 'simnet', 'weigh', 'weakshot', 'patchcore',
    'patch_net',
}  # fmt: skip
# Of these 'test' is asked in tasks of their own, they hand on no features, and move no images.
OWN_TEST = {'anomaly'}
NAMES = sorted({m.name for m in pkgutil.iter_modules(methods.__path__)} - OTHERS)
CASES = [(name, fields) for name in NAMES for fields in ({}, *VARIANTS.get(name, ()))]


class Case:
    """A method on tiny images, with its states and compiled steps."""

    def __init__(self, name, fields):
        for net, net_fields in NETS:
            try:
                config = configs.defaults(name, 'synthetic', net)
                config.net.update(net_fields)
                config.method.update({**SHORT.get(name, {}), **fields})
                self.config, self.data = settle(config), images()
                if self.names_matter:  # it answers only tasks of as many ways as it is trained on
                    config.eval.tasks = ((WAYS, 1), (WAYS, 2))
                self.method = self.build()
                self.init = jax.jit(self.method.init)(KEY, self.data)
                self.modes = {}
                return
            except (InputError, AttributeError, TypeError):
                continue
        raise AssertionError(f'none of the nets suits {name}')

    def build(self, **fields):
        config = self.config.copy_and_resolve_references()
        config.update_from_flattened_dict(fields)
        return configs.find('methods', config.method.name).build(config, self.data)

    @property
    def trains(self):
        return self.method.update is not None

    @property
    def role(self):
        """Where it is asked for classes drawn at random."""
        return 'val' if self.config.method.name in OWN_TEST else 'test'

    @property
    def names_matter(self):
        """Whether a class is answered by a place of its own in the parameters."""
        return self.config.method.get('head') == 'per_class'

    @property
    def normalises(self):
        return 'batch_norm' in self.config.method

    @cached_property
    def step(self):
        return make_step(self.method, batch_size=4, steps_per_call=2)

    @cached_property
    def after(self):
        """State and metrics after a few steps on two devices."""
        return self.run(self.step)

    def run(self, step):
        return jax.device_get(step(jax.tree.map(np.asarray, self.init), self.data, KEY))

    @property
    def state(self):
        """A state in which no parameter or statistic has its first value."""
        return self.after[0] if self.trains else self.init

    @cached_property
    def episode(self):
        draw = jax.jit(partial(sampling.sample_episode, ways=WAYS, shots=2, queries=3))
        return jax.tree.map(np.asarray, draw(KEY, self.data.roles['test']))

    @cached_property
    def predictor(self):
        return jax.jit(self.method.predict)

    def asked_in(self, mode):
        """The method with that mode of batch norm, the same one for every test.

        Another one is another program to compile.
        """
        if mode not in self.modes:
            fields = {'method.batch_norm': mode} if self.normalises else {}
            self.modes[mode] = self.build(**fields) if fields else self.method
        return self.modes[mode]

    def predict(self, **parts):
        """Scores of the episode, some of its parts replaced."""
        return np.asarray(self.predictor(self.state, self.episode._replace(**parts)))


def settle(config):
    """Few of everything; SGD, for Adam makes much of the rounding of small gradients."""
    config.update({'num_steps': 0, 'batch_size': 4, 'steps_per_call': 2})
    config.train.update({'ways': 3, 'shots': 1, 'queries': 2})
    config.eval.update(
        {'tasks': ((3, 1), (4, 2)), 'queries': 3, 'episodes': 24, 'val_episodes': 24}
    )
    config.optim.update({'name': 'sgd', 'learning_rate': 0.05})
    return config


def images(num_classes=6, per_class=8, signal=1.0, seed=0):
    """Train, val and test: noise around an image of each class's own, times `signal`."""
    rng = np.random.default_rng(seed)
    roles = {}
    for role in ('train', 'val', 'test'):
        label = np.repeat(np.arange(num_classes), per_class)
        x = signal * rng.normal(size=(num_classes, 8, 8, 1))[label]
        x = 128 + 40 * (x + rng.normal(size=x.shape))
        x, group = np.clip(x, 0, 255).astype(np.uint8), np.arange(len(x))
        roles[role] = from_arrays(x, label, group=group)  # no item is another's copy
    return jax.device_put(Data(roles))
