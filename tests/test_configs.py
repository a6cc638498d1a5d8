"""Every recipe builds at its full size, and takes two steps at a small one."""

import contextlib
import json
import pickle

import jax
import pytest
import tiny_maps
from absl import flags
from ml_collections import ConfigDict, config_flags
from small_recipes import (
    ALL,
    FILES,
    TRIED,
    WEAK,
    handed_on,
    load,
    recipe,
    small,
    stages_of,
    stand_in,
    two_steps,
    variants,
)

from anyshot_jax import config as configs
from anyshot_jax.defects import memory_bank
from anyshot_jax.training import checks
from anyshot_jax.training.step import make_step
from anyshot_jax.types import ArgumentError, InputError


@pytest.fixture(autouse=True)
def no_weights_needed(monkeypatch):
    monkeypatch.setattr(memory_bank, 'load', tiny_maps.named)


def test_there_are_recipes():
    names = {p.id for p in ALL}
    assert {'quickstart', 'omniglot_protonet:short'} <= names and len(names) == len(ALL)


@pytest.mark.parametrize('file', FILES, ids=lambda f: f.stem)
def test_recipe_refuses_variants_that_its_docstring_does_not_name(file):
    with pytest.raises(InputError) as error:
        recipe(file).get_config('0')
    _, _, known = str(error.value).partition('; there are ')
    assert sorted(filter(None, known.split(', '))) == sorted(variants(file)[1:])


@pytest.mark.parametrize(
    ('name', 'arg', 'meant'),
    [
        ('mvtec_types', 'pixls', 'pixels'),
        ('omniglot_protonet', 'shrot', 'short'),
        ('omniglot_lake', 'kock', 'koch'),
        ('product_retrieval', 'grocry', 'grocery'),
        ('product_retrieval', 'grocery_siamees', 'grocery_maml'),
    ],
)
def test_a_misspelt_variant_is_refused(name, arg, meant):
    (file,) = (f for f in FILES if f.stem == name)
    with pytest.raises(InputError, match=f"no variant :{arg}; did you mean '{meant}'"):
        recipe(file).get_config(arg)


@pytest.mark.slow
@pytest.mark.parametrize(('file', 'arg'), ALL)
def test_recipe_fits_together_at_its_own_size(file, arg):
    """Its fields are known, and net, method, batch and step agree in every shape; nothing runs."""
    module = recipe(file)
    assert file.name in module.__doc__, 'its docstring has no command'
    full, exported = module.get_config(arg), {}
    for i, given in enumerate(stages_of(full)):
        config = configs.check(given)
        assert configs.to_json(config) == configs.to_json(given)
        checks.check(config, in_stages='stages' in full)
        ways = max([config.train.ways, *(ways for ways, _ in config.eval.tasks)])
        items = config.eval.queries + max([0, *(shots for _, shots in config.eval.tasks)])
        items = max(items, config.train.shots + config.train.queries)
        fields = stand_in(config, ways, items)
        data = load(config, fields)
        data = data.replace(stages=exported) if config.data.name in WEAK else data
        data = jax.tree.map(jax.numpy.asarray, data)
        method = configs.find('methods', config.method.name).build(config, data)
        key = jax.random.key(0)
        state = jax.eval_shape(method.init, key, data)
        if config.num_steps:
            config.batch_size += config.batch_size % 2
            step = make_step(method, batch_size=config.batch_size, steps_per_call=1)
            after, metrics = jax.eval_shape(step, state, data, key)
            assert jax.tree.structure(after) == jax.tree.structure(state)
            assert 'loss' in metrics
        if config.data.name in WEAK and i + 1 < len(full.stages):
            exported[full.stages[i]] = handed_on(method, state, data)


@pytest.fixture(scope='module')
def stages_tried():
    """By what they are at the small size, the stages that have run, with what they export."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize(('file', 'arg'), TRIED)
def test_recipe_takes_two_steps(file, arg, stages_tried):
    """Its method, net and optimiser, on tiny data and tasks; what is the same then runs once."""
    full, exported, keys = recipe(file).get_config(arg), {}, {}
    for i, given in enumerate(stages_of(full)):
        config, fields = small(configs.check(given))
        # The stand-in takes the place of data and encoder.
        kind = 'weak' if config.data.name in WEAK else config.data.name == 'mvtec'
        shared = {'data': kind, 'encoder': bool(config.encoder), 'steps_per_call': 2}
        key = repr(sorted({**config.to_dict(), **shared}.items())) + configs.to_json(fields)
        used = {str(v) for v in (config.features_from, *config.method.values())}
        key += ''.join(keys[name] for name in keys if name in used)  # of earlier stages
        if key not in stages_tried:
            stages_tried[key] = two_steps(config, fields, exported)
        if config.data.name in WEAK:
            exported[full.stages[i]], keys[full.stages[i]] = stages_tried[key], key


# The config itself.


def test_stages_share_their_seed_and_directory():
    make = lambda: configs.defaults('knn', 'folder')
    config = configs.in_stages(a=make(), b=make())
    assert config.stages == ('a', 'b') and config.a.seed == config.b.seed == 0
    values, argv = flags.FlagValues(), ['', '--config.data.dir=here', '--config.seed=3']
    argv.append('--config.b.eval.queries=7')
    config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=argv)
    values(argv)
    for stage in (config.a, config.b):
        assert configs.check(stage).data.dir == 'here' and configs.check(stage).seed == 3
    assert (config.a.eval.queries, config.b.eval.queries) == (15, 7)


@pytest.mark.parametrize(('name', 'what'), [('test', 'a role of the data'), ('seed', 'a field')])
def test_a_stage_is_not_called_like_something_else(name, what):
    stage = configs.defaults('knn', 'synthetic')
    with pytest.raises(InputError, match=f'a stage cannot be called {name!r}, which is {what}'):
        configs.in_stages(**{name: stage})


def test_defaults_name_the_nearest():
    for args, hint in [
        (
            ('protonat', 'glyphs', 'conv4'),
            r"no anyshot_jax/methods/protonat\.py; did you mean 'prot",
        ),
        (('protonet', 'glyph', 'conv4'), r"no anyshot_jax/data/glyph\.py; did you mean 'glyphs'"),
        (('protonet', 'glyphs', 'conv'), r"no anyshot_jax/nets/conv\.py; did you mean 'conv4'"),
        (('protonet', 'splits', 'conv4'), r'no anyshot_jax/data/splits\.py; there are .*glyphs'),
        (
            ('xyz', 'glyphs', 'conv4'),
            r'there are anomaly, generator, hausdorff, imaml, knn, lda, maml, maml_regression',
        ),
        (('no_such.module', 'glyphs'), r'config asks for the module no_such\.module'),
    ]:
        with pytest.raises(InputError, match=hint):
            configs.defaults(*args)


def test_defaults_are_locked_and_typed():
    config = configs.defaults('protonet', 'synthetic', 'conv4')
    with pytest.raises(AttributeError, match='num_steps'):
        config.num_step = 1
    with pytest.raises(TypeError):
        config.optim.learning_rate = 'fast'
    config.optim.learning_rate = 1  # an int is a float, too
    assert config.optim.learning_rate == 1.0


def test_every_net_has_plain_fields():
    for name in ('conv4', 'mlp', 'resnet12'):
        fields = configs.net_fields(name)
        assert fields and not {'parent', 'name'} & fields.keys()
        configs.build_net(configs.defaults('protonet', 'synthetic', name).net)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c.update({'seeds': 1}), r"unknown field config\.seeds; did you mean 'seed'\?"),
        (
            lambda c: c['optim'].update({'lr': 1}),
            r'unknown field config\.optim\.lr; there are .*learn',
        ),
        (lambda c: c.update({'evall': {'queries': 1}}), r"config\.evall; did you mean 'eval'\?"),
        (lambda c: c.update({'num_steps': 'x'}), r"config\.num_steps must be int, got 'x'"),
        (lambda c: c.update({'optim': 3}), r'config\.optim has fields of its own, got 3'),
        (lambda c: c.pop('method'), r'config\.method\.name is missing'),
        (lambda c: c.update({'method': 'protonet'}), r'config\.method\.name is missing'),
        (lambda c: c['data'].pop('name'), r'config\.data\.name is missing'),
        (lambda c: c.update({'stages': ('a',)}), r'a stage cannot have stages'),
    ],
)
def test_check_names_the_wrong_field(change, message):
    fields = configs.defaults('protonet', 'synthetic', 'conv4').to_dict()
    change(fields)
    with pytest.raises(InputError, match=message):
        configs.check(ConfigDict(fields, type_safe=False))


def test_check_fills_in_what_is_missing():
    config = configs.check(ConfigDict({'method': {'name': 'knn'}, 'data': {'name': 'synthetic'}}))
    assert configs.to_json(config) == configs.to_json(configs.defaults('knn', 'synthetic'))
    assert config.is_locked


def test_a_field_with_choices_names_the_nearest():
    fields = {'loss': 'bce', 'mode': 'slwo'}
    configs.check_choices(fields, {'loss': ('bce', 'mse')})
    with pytest.raises(InputError, match=r"config\.x\.mode='slwo' is unknown; .* 'slow'\?"):
        configs.check_choices(fields, {'loss': ('bce',), 'mode': ('fast', 'slow')}, 'config.x')


def test_errors_name_the_field_that_the_user_has_set():
    """The same argument by the caller's name, through two callers, and unpickled (sweeps do)."""

    def message(error, *fields):
        with pytest.raises(InputError) as caught, contextlib.ExitStack() as stack:
            for path, renamed in fields:
                stack.enter_context(configs.under(path, **renamed))
            raise error
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        return str(caught.value)

    error = ArgumentError('dim', '=9 must be 8')
    assert message(error) == 'dim=9 must be 8'
    assert message(error, ('config.a', {})) == 'config.a.dim=9 must be 8'
    assert message(error, ('config.a', {'dim': 'encoder'})) == 'encoder=9 must be 8'
    # The innermost context renames first.
    assert (
        message(error, ('config.a', {}), ('', {'dim': 'sub_dim'})) == 'config.a.sub_dim=9 must be 8'
    )
    assert message(InputError('dim is bad'), ('config.a', {})) == 'dim is bad'


def test_differences():
    """Fields that came to the package later are none."""
    old, new = {'a': 1, 'b': {'c': 2}}, {'a': 1, 'b': {'c': 3, 'd': 4}, 'e': 5}
    assert configs.differences(old, new) == ['config.b.c: 2 -> 3']
    assert configs.differences({**old, 'gone': 1}, old) == ['config.gone: 1 -> None']


def test_a_config_of_before_a_field_was_renamed_is_read_and_its_old_name_refused():
    """In one stage, and in several; a workdir that has the old name goes on."""
    config = configs.defaults('refine', 'features')
    config.method.update({'synthesised_from': 'ridge', 'synthesised_weight': 0.25})
    new = configs.to_json(config)
    old = new.replace('synthesised_', 'fake').replace('fakefrom', 'fakes_from')
    old = old.replace('fakeweight', 'fake_weight').replace('synthetic_against', 'made_up_against')
    assert old.count('fake') == 2 and 'synthe' not in old
    assert configs.to_json(configs.from_json(old)) == new
    old, new = json.loads(old), json.loads(new)
    assert configs.differences(old, new) == []
    old['method']['fakes_from'] = 'generator'
    assert configs.differences(old, new) == ['config.method.synthesised_from: generator -> ridge']
    stages = {'stages': ['a'], 'a': old, 'seed': 3}
    assert configs.renamed(stages)['a']['method']['synthesised_from'] == 'generator'
    with pytest.raises(
        InputError, match=r'fake_weight is called config\.method\.synthesised_weight'
    ):
        configs.check(ConfigDict(old))


def test_every_renamed_field_is_one():
    methods = [configs.defaults(m, 'features') for m in ('refine', 'ridge', 'generator')]
    for old, new in configs.RENAMED.items():
        (section, name), (same, after) = old.split('.'), new.split('.')
        assert section == same and all(name not in c[section] for c in methods)
        assert any(after in c[section] for c in methods)
