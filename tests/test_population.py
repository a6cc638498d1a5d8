"""Populations: every member's numbers are those of the same run alone."""

import contextlib
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from anyshot_jax import config as configs
from anyshot_jax import methods
from anyshot_jax.training import checkpoint, chunks, intervals, loop, population, result
from anyshot_jax.training.progress import Progress
from anyshot_jax.types import InputError

pytestmark = [pytest.mark.usefixtures('swept'), pytest.mark.slow]
TASK = '3-way 1-shot'
RATES = (('optim.learning_rate', (0.02, 0.1)),)
INNER = (*RATES, ('method.inner_lr', (0.05, 0.4)))


def run(config, workdir):
    loop.run(config, workdir)
    return json.loads((workdir / 'result.json').read_text())


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """A function: what the member's own command leaves, its result and its workdir."""
    done = {}

    def once(config, member):
        made = config.copy_and_resolve_references().unlock()
        made.update({'seed': member['seed'], 'num_seeds': 1, 'vary': (), 'member_chunk': 0})
        for path, value in member['setting'].items():
            section, name = path.split('.')
            made[section][name] = value
        key = configs.to_json(made)
        if key not in done:
            workdir = tmp_path_factory.mktemp('alone')
            done[key] = run(made.lock(), workdir), workdir
        return done[key]

    return once


def lines(workdir, kind):
    every = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
    return [line for line in every if line['kind'] == kind]


@pytest.mark.parametrize(
    ('method', 'net', 'vary', 'chunk'),
    [
        ('maml', 'conv4', INNER[1:], 4),
        ('protonet', 'mlp', RATES, 2),
        ('reptile', 'mlp', RATES, 1),
    ],
    ids=['maml-vmap', 'protonet-pairs', 'reptile-loop'],
)
def test_members_are_as_if_alone(tiny_config, alone, tmp_path, method, net, vary, chunk):
    fields = {'method__inner_steps': 2} if method == 'reptile' else {}
    config = tiny_config(method, net, num_seeds=2, vary=vary, member_chunk=chunk, **fields)
    config.seed = 5
    got = run(config, tmp_path)
    assert [m['seed'] for m in got['members']] == [5, 6, 5, 6]
    assert [[*m['setting'].values()] for m in got['members']] == [
        [v] for v in vary[0][1] for _ in '56'
    ]
    logged = {k: lines(tmp_path, k) for k in ('train', 'val')}
    for i in (0, 3):
        want, workdir = alone(config, got['members'][i])
        assert got['members'][i]['step'] == want['step']
        assert got['members'][i]['values'][TASK] == pytest.approx(want['values'][TASK], abs=1e-5)
        for kind, name in (('train', 'loss'), ('val', TASK)):
            own = [line['members'][name][i] for line in logged[kind]]
            np.testing.assert_allclose(
                own, [line[name] for line in lines(workdir, kind)], rtol=2e-4, atol=1e-5
            )


def test_the_result_of_settings(tiny_config, tmp_path, capsys):
    """The setting that is best on validation is the result; the others stand below it."""
    config = tiny_config('maml', num_seeds=3, vary=INNER, method__head='zero', num_steps=4)
    got = run(config, tmp_path)
    assert len(got['members']) == 12 and len(got['settings']) == 4
    assert re.findall(r'lr=(\S+) \(best', capsys.readouterr().out)
    best = np.reshape([m['validation'] for m in got['members']], (4, 3)).mean(1)
    [chosen] = [s for s in got['settings'] if s['chosen']]
    assert chosen == got['settings'][int(np.argmax(best))]
    assert got['values'] == chosen['values']
    means = [m['values'][TASK]['mean'] for m in got['members'] if m['setting'] == chosen['setting']]
    half = stats.t.interval(0.95, 2, scale=stats.sem(means))[1]
    assert got['values'][TASK] == pytest.approx({'mean': np.mean(means), 'ci95': half, 'n': 3})


def test_stopped_early_each_by_itself(tiny_config, alone, tmp_path):
    """A member that has ended keeps the best that it had, while others go on."""
    fields = {'num_steps': 40, 'early_stop': 2, 'eval_every': 2, 'eval__val_episodes': 4}
    # Nothing is saved in between, that it takes less time.
    fields |= {'save_every': 40, 'log_every': 40}
    config = tiny_config(num_seeds=4, **fields)
    got = run(config, tmp_path)
    seen = lines(tmp_path, 'val')
    ends = []
    for i, member in enumerate(got['members']):
        best, step, stale = -1, 0, 0
        for line in seen:  # by hand: the best before two validations without a new one
            value = line['members'][TASK][i]
            best, step, stale = (
                (value, line['step'], 0) if value > best else (best, step, stale + 1)
            )
            if stale == 2:
                break
        ends.append(line['step'])
        assert (member['validation'], member['step']) == (best, step)
        want, _ = alone(config, member)
        assert want['step'] == step and member['values'][TASK] == pytest.approx(
            want['values'][TASK]
        )
    assert len(set(ends)) > 1 and seen[-1]['step'] == max(ends), ends


def test_one_that_diverges_is_left_behind(tiny_config, tmp_path, capsys):
    config = tiny_config(vary=(('optim.learning_rate', (1e30, 0.05)),), num_seeds=2)
    got = run(config, tmp_path / 'a')
    shown = capsys.readouterr()
    assert 'seed 1, optim.learning_rate=1e+30: ' in shown.out + shown.err
    assert [m['diverged'] > 0 for m in got['members']] == [True, True, False, False]
    assert [m['values'] is None for m in got['members']] == [True, True, False, False]
    [left] = got['settings']
    assert left['setting'] == {'optim.learning_rate': 0.05} and left['seeds'] == got['seeds'] == 2
    assert got['foremost'] in (2, 3)
    [*_, last] = lines(tmp_path / 'a', 'train')
    assert last['members']['loss'][:2] == [None, None] and math.isfinite(last['loss'])
    assert math.isfinite(got['values'][TASK]['mean'])
    with pytest.raises(InputError, match=r'became NaN or infinite at step 2.*learning_rate'):
        loop.run(tiny_config(optim__learning_rate=1e30, num_seeds=2), tmp_path / 'b')


def test_settings_that_lost_a_seed_each_are_told_apart_by_the_others(tiny_config):
    """By hand: the one survivor of the second setting is better than that of the first."""
    config = configs.check(tiny_config(num_seeds=2, vary=RATES))
    data = configs.find('data', 'synthetic').load(config.data)
    progress = Progress.resumed(4, 1, {'best': [0.9, 0.3, 0.8, 0.2], 'diverged': [6, 0, 0, 6]})
    states = SimpleNamespace(step=np.array([6, 4, 2, 6]))
    found = {TASK: {'mean': 0.5, 'ci95': 0.1, 'n': 20}}
    values = [None, found, found, None]
    everyone = population.build(config, data)
    foremost, record = result.make_record(config, '', everyone, states, progress, values, data)
    assert (foremost, record['foremost'], record['seeds'], record['step']) == (2, 2, 1, 2)
    assert [s['chosen'] for s in record['settings']] == [False, True]


def test_what_was_best_goes_only_when_the_new_is_whole(tmp_path, monkeypatch):
    """A killed run comes by step 6 again, but not by step 2, where the first member was best."""
    progress = Progress.resumed(2, 1, {})
    state = lambda a, b: {'w': jnp.array([a, b])}
    with contextlib.closing(checkpoint.open_manager(tmp_path, keep=1)) as best:
        chunks.keep_best(best, 2, state(1.0, 1.0), np.array([True, True]), progress)
        chunks.keep_best(best, 6, state(5.0, 7.0), np.array([False, True]), progress)
        with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
            m.setattr(best, 'save', lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
            chunks.keep_best(best, 6, state(5.0, 7.0), np.array([False, True]), progress)
        assert checkpoint.restore_or_init(best, state(0.0, 0.0))[0]['w'].tolist() == [1.0, 7.0]
        chunks.keep_best(best, 6, state(5.0, 7.0), np.array([False, True]), progress)
        assert checkpoint.restore_or_init(best, state(0.0, 0.0))[0]['w'].tolist() == [1.0, 7.0]


def test_evaluating_half_a_population_chooses_by_its_validations(tiny_config, tmp_path):
    """It was cut after a validation and before any checkpoint but those of the best."""
    vary = (('optim.learning_rate', (1e-9, 0.1)),)
    config = tiny_config(vary=vary, num_steps=40, eval_every=20, save_every=40)

    def stop(step, values):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(config, tmp_path, on_validation=stop)
    config.eval_only = True
    loop.run(config, tmp_path)
    [file] = tmp_path.glob('eval-*.json')
    got = json.loads(file.read_text())
    seen = [m['validation'] for m in got['members']]
    assert None not in seen and seen[0] != seen[1]
    assert got['foremost'] == int(np.argmax(seen))
    for folder in ('best', 'checkpoints'):
        for array in (tmp_path / folder).rglob('d/*'):
            array.unlink()
    with pytest.raises(InputError, match=r'no checkpoint of .* can be used'):
        loop.run(config, tmp_path)


def test_a_workdir_from_before_there_were_populations(tiny_config, tmp_path):
    loop.run(tiny_config(), tmp_path)
    old = json.loads((tmp_path / 'config.json').read_text())
    del old['num_seeds'], old['vary']
    (tmp_path / 'config.json').write_text(json.dumps(old))
    loop.run(tiny_config(), tmp_path)
    with pytest.raises(InputError, match=r'config\.num_seeds: 1 -> 2'):
        loop.run(tiny_config(num_seeds=2), tmp_path)


def test_a_stopped_population_goes_on_to_the_same_bits(tiny_config, tmp_path):
    config = tiny_config(num_seeds=3, num_steps=12, log_every=6)  # two steps wait for their line
    want = run(config, tmp_path / 'whole')

    def stop(step, values):
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(config, tmp_path / 'cut', on_validation=stop)
    got = run(config, tmp_path / 'cut')
    assert got['members'] == want['members'] and got['values'] == want['values']
    for kind in ('train', 'val'):
        drop = lambda line: {k: v for k, v in line.items() if k != 'steps_per_s'}
        ours, theirs = (map(drop, lines(tmp_path / w, kind)) for w in ('cut', 'whole'))
        assert list(ours) == list(theirs)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'num_seeds': 0}, r'num_seeds=0 must be >= 1'),
        (
            {'vary': (('optim.learning_rat', (1.0,)),)},
            r"'optim.learning_rat'.*'optim.learning_rate'",
        ),
        ({'vary': (('optim.halve_every', (1.0,)),)}, r"'optim.halve_every' cannot vary within"),
        ({'vary': (('data.noise', (1.0,)),)}, r"'data.noise' cannot vary within one program"),
        ({'vary': ('optim.learning_rate', (1.0,))}, r'must be pairs'),
        ({'vary': (('optim.learning_rate', ()),)}, r'needs finite and different values, got \(\)'),
        ({'vary': (('optim.learning_rate', (0.1, 0.1)),)}, r'different values, got \(0\.1, 0\.1\)'),
        ({'vary': (('optim.learning_rate', '12'),)}, r'must be pairs'),
        ({'vary': (RATES[0], RATES[0])}, r'names a field twice'),
        ({'vary': (('optim.clip_norm', (0.0, 1.0)),)}, r'optim.clip_norm = 0 switches it off'),
        (
            {'vary': (('optim.momentum', (0.5, 0.9)),), 'optim__name': 'adam'},
            r"'optim.momentum' cannot vary within one program",
        ),
        ({'num_seeds': 2, 'num_steps': 0}, r'are for training'),
        ({'num_seeds': 2, 'residual__encoder': 'resnet18'}, r'the seed also draws what is made'),
    ],
    ids=lambda p: '-'.join(map(str, next(iter(p.items()))))[:40] if isinstance(p, dict) else '',
)
def test_what_can_not_be_a_population(tiny_config, tmp_path, fields, message):
    with pytest.raises(InputError, match=message):
        loop.run(tiny_config(**fields), tmp_path / 'run')
    assert not (tmp_path / 'run' / 'result.json').exists()


def test_a_memory_bank_is_of_one_seed():
    config = configs.defaults(method='patch_net', data='mvtec')
    config.num_seeds = 2
    with pytest.raises(InputError, match='a memory bank'):
        population.members(config)


def test_stages_hand_on_what_one_model_made(tiny_config, tmp_path):
    config = configs.in_stages(first=tiny_config(num_seeds=2), second=tiny_config())
    with pytest.raises(InputError, match='a stage hands on what one model made'):
        loop.run(config, tmp_path)


def test_members_of_one():
    values = {TASK: {'mean': 0.5, 'ci95': 0.1, 'n': 20}}
    assert intervals.over_members([None, values]) == values
    assert (
        intervals.over_members([values, {TASK: {'mean': 0.7, 'ci95': 0.1, 'n': 20}}])[TASK]['n']
        == 2
    )


@pytest.mark.parametrize(
    ('method', 'path', 'values', 'fields'),
    [
        ('siamese', 'method.margin', (0.2, 0.9), {'method__loss': 'triplet'}),
        ('protonet', 'optim.clip_norm', (0.05, 5.0), {}),
    ],
    ids=['margin', 'clip_norm'],
)
def test_checked_fields_vary_too(tiny_config, alone, tmp_path, method, path, values, fields):
    """Margins are compared with 0, and clipping is left out at 0: all members agree on that."""
    config = tiny_config(method, vary=((path, values),), **fields)
    got = run(config, tmp_path)
    losses = [line['members']['loss'] for line in lines(tmp_path, 'train')]
    assert not np.allclose(*zip(*losses, strict=True), rtol=1e-4)
    for i in (0, 1):
        _, workdir = alone(config, got['members'][i])
        want = [line['loss'] for line in lines(workdir, 'train')]
        np.testing.assert_allclose([own[i] for own in losses], want, rtol=2e-4, atol=1e-5)


def test_what_a_run_does_not_use_is_not_varied(tiny_config, tmp_path):
    """A siamese network that is trained by cross-entropy has no margin."""
    config = tiny_config('siamese', vary=(('method.margin', (0.2, 0.9)),))
    with pytest.raises(InputError, match=r'method\.margin is not used by this run'):
        loop.run(config, tmp_path / 'run')


def test_every_number_that_may_vary_is_a_field():
    for file in Path(methods.__file__).parent.glob('[a-z]*.py'):
        method = configs.find('methods', file.stem)
        for name in getattr(method, 'TRACED', ()):
            assert isinstance(method.DEFAULTS[name], float), (file.stem, name)


def test_progress_by_hand(tiny_config):
    """Three members: one gets better, one has waited long enough, one diverges."""
    config = tiny_config(early_stop=2, stop_at=0.9)
    progress = Progress.resumed(3, 1, {})
    assert progress.validated(2, np.array([0.5, 0.5, 0.5]), config).all()
    assert progress.validated(4, np.array([0.6, 0.5, 0.4]), config).tolist() == [True, False, False]
    bad = {'loss': np.array([[1.0, 1.0], [1.0, 1.0], [1.0, np.nan]]), 'accuracy': np.ones((3, 2))}
    assert progress.note_metrics(bad, 6) == {
        2: 'loss became NaN or infinite at step 6 (steps 5 to 6)'
    }
    assert progress.note_metrics(bad, 8) == {}  # said once
    assert progress.ended(config).tolist() == [False, False, True]
    progress.validated(6, np.array([0.9, 0.5, np.nan]), config)
    assert progress.ended(config).tolist() == [True, True, True]
    assert not progress.validated(8, np.array([1.0, 1.0, 1.0]), config).any()
    assert progress.best_member() == 0
    again = Progress.resumed(3, 1, json.loads(json.dumps(progress.record())))
    assert again.record() == progress.record() == {
        'best': [0.9, 0.5, 0.5], 'best_step': [6, 2, 2], 'stale': [0, 2, 1],
        'diverged': [0, 0, 6], 'seconds': 0.0,
    }  # fmt: skip
    errors = Progress.resumed(2, -1, {})  # the smaller the better
    assert errors.validated(1, np.array([0.3, 0.2]), config).all() and errors.best_member() == 1


def test_take_and_where():
    states = {'a': np.arange(6.0).reshape(3, 2), 'b': np.arange(3)}
    jax.tree.map(
        np.testing.assert_array_equal, population.take(states, 1), {'a': [2.0, 3.0], 'b': 1}
    )
    mixed = population.where(
        np.array([True, False, True]), states, jax.tree.map(lambda a: -a, states)
    )
    want = {'a': [[0.0, 1.0], [-2.0, -3.0], [4.0, 5.0]], 'b': [0, -1, 2]}
    jax.tree.map(np.testing.assert_array_equal, mixed, want)
