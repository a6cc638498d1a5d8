"""The experiments' scripts: tables by hand, results that no longer hold, the bench's arithmetic."""

import importlib
import json
import shlex
import sys
from pathlib import Path

import pytest

from anyshot_jax.config import config_hash
from anyshot_jax.sweep.recipes import load_config
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'experiments'))
tables = importlib.import_module('tables')
run_rows = importlib.import_module('run_rows')
side_by_side = importlib.import_module('side_by_side')

CONFIG = """
from anyshot_jax.config import defaults

def get_config(arg=''):
    config = defaults(method='knn', data='synthetic')
    config.num_steps = 0
    config.optim.learning_rate = {rate}
    if arg == 'other':
        config.batch_size = 16
    return config
"""
ROWS = """
COLUMNS = ('5-way 1-shot', '5-way 5-shot')
ROWS = (
    {'name': 'a', 'title': 'Method A', 'config': 'configs/a.py', 'overrides': (),
     'seeds': (0, 1, 2), 'published': (98.8, 99.7), 'source': 'Somebody 2017'},
    {'name': 'b', 'title': 'Method B', 'config': 'configs/a.py:other',
     'overrides': ('eval.queries=7',), 'seeds': (0,), 'published': (), 'source': ''},
)
"""


@pytest.fixture
def root(tmp_path):
    """A repository with one table of two rows, and no result yet."""
    for folder in ('configs', 'experiments/rows', 'experiments/results'):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / 'configs/a.py').write_text(CONFIG.format(rate='0.5'))
    (tmp_path / 'experiments/rows/few.py').write_text(ROWS)
    return tmp_path


def result(root, row, seed, one_shot, ci=0.01, **more):
    """A line as run_rows makes it of a result.json, with the given mean at 5-way 1-shot."""
    row = next(r for r in tables.load_rows('few', root).ROWS if r['name'] == row)
    config = load_config(row['config'], tables.seeded(row, seed), root)
    values = {'5-way 1-shot': {'mean': one_shot, 'ci95': ci, 'n': 600}}
    made = {'values': values, 'step': 9, 'seed': seed, 'config_hash': config_hash(config)}
    made |= {'device': 'NVIDIA H200', 'num_devices': 1, 'seconds': 90.0, 'batch_norm': 'inductive'}
    return run_rows.make_line(row, seed, made | more, root)


def put(root, *lines):
    for line in lines:
        run_rows.put_line(root / 'experiments/results/few.jsonl', line)


def missing(root):
    lines = tables.read_lines(root / 'experiments/results/few.jsonl')
    rows = tables.load_rows('few', root).ROWS
    return [(row['name'], seed) for row, seed in run_rows.pending(rows, lines, root=root)]


# Numbers.


def test_one_seed_has_the_interval_over_episodes():
    assert tables.cell([{'mean': 0.98765, 'ci95': 0.00123, 'n': 600}]) == '98.77 ± 0.12'


def test_several_seeds_have_students_interval():
    # mean 0.99, sample deviation 0.01; t(0.975, 2) = 4.3027, over sqrt(3) = 2.4841.
    values = [{'mean': m, 'ci95': 0.5, 'n': 600} for m in (0.98, 0.99, 1.0)]
    assert tables.cell(values) == '99.00 ± 2.48'
    # t(0.975, 1) = 12.7062; two means 0.02 apart deviate by 0.0141421, over sqrt(2) = 0.01.
    assert tables.interval_over_seeds([0.90, 0.92]) == pytest.approx(0.127062, rel=1e-5)


def test_a_column_without_a_value_stays_empty():
    diverged = {'mean': float('inf'), 'ci95': float('nan'), 'n': 600}
    assert tables.cell([diverged]) == tables.cell([{'mean': 0.5, 'ci95': 0.1}, diverged])
    assert tables.cell([diverged]) == 'diverged'
    assert tables.cell([]) == tables.cell([None]) == '-'


def test_table_by_hand(root):
    put(root, result(root, 'a', 1, 0.97), result(root, 'a', 0, 0.95, seconds=30.0))
    # deviation of .95, .97 is .0141421; times 12.7062 over sqrt(2): 12.71. Minutes: (1.5 + .5) / 2.
    want = (
        '|  | 5-way 1-shot | 5-way 5-shot | seeds | episodes | batch norm | minutes | machine '
        '| published |\n'
        '| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n'
        '| Method A | 96.00 ± 12.71 | - | 2 | 600 | inductive | 1.0 | NVIDIA H200 '
        '| 98.8 / 99.7 (Somebody 2017) |\n\n'
    )
    got = tables.table('few', root)
    assert got.startswith(want) and got.endswith('Without a result so far: Method B.\n')


def test_a_table_has_a_file_and_its_place_in_the_readme(root):
    put(root, result(root, 'b', 0, 0.5))
    text = '# Title\n<!-- table:few -->\nold\n<!-- /table -->\nafter | this\n'
    (root / 'README.md').write_text(text)
    contents = tables.documents(root)
    filled = contents[root / 'README.md']
    assert filled.startswith('# Title\n<!-- table:few -->\n|  | 5-way 1-shot')
    assert filled.endswith('<!-- /table -->\nafter | this\n')
    assert '| Method B | 50.00 ± 1.00 |' in filled and 'old' not in filled
    own = contents[root / 'experiments/tables/few.md']
    assert own.startswith('# few\n\n') and '| Method B | 50.00 ± 1.00 |' in own
    assert '(few.md)' in contents[root / 'experiments/tables/README.md']
    row = '| `:other` `eval.queries=7` | 5-way 1-shot 50.0 | 1 |'
    assert row in contents[root / 'configs/README.md']


def test_machine_is_named_without_paths_or_hosts():
    assert tables.machine('NVIDIA H200', 1) == 'NVIDIA H200'
    assert tables.machine('TPU v5 lite', 8) == '8 x TPU v5 lite'
    assert tables.machine('cpu', 2).endswith(' CPU cores')


# Results that hold, and those that don't.


def test_changed_config_is_an_error_that_names_the_field(root):
    put(root, result(root, 'a', 0, 0.9))
    (root / 'configs/a.py').write_text(CONFIG.format(rate='0.125'))
    with pytest.raises(InputError) as e:
        tables.table('few', root)
    assert 'few.jsonl:1 (a, seed 0)' in str(e.value) and 'configs/a.py' in str(e.value)
    assert 'config.optim.learning_rate: 0.5 -> 0.125' in str(e.value)
    assert ('a', 0) in missing(root)


def test_changed_overrides_are_an_error(root):
    put(root, result(root, 'b', 0, 0.9))
    rows = root / 'experiments/rows/few.py'
    rows.write_text(ROWS.replace('eval.queries=7', 'eval.queries=8'))
    with pytest.raises(InputError, match=r'eval.queries=7.*but the row says.*eval.queries=8'):
        tables.table('few', root)


def test_a_field_newer_than_the_result_is_no_change(root):
    line = result(root, 'a', 0, 0.9)
    del line['config']['optim']['momentum']
    line['config_hash'] = config_hash(tables.ConfigDict(line['config']))
    put(root, line)
    assert 'Method A | 90.00 ± 1.00' in tables.table('few', root)


def test_a_field_that_is_gone_is_a_change(root):
    line = result(root, 'a', 0, 0.9)
    line['config']['optim']['nesterov'] = True
    line['config_hash'] = config_hash(tables.ConfigDict(line['config']))
    put(root, line)
    with pytest.raises(InputError, match=r'config.optim.nesterov: True -> None'):
        tables.table('few', root)


def test_config_that_does_not_have_its_hash_is_refused(root):
    line = result(root, 'a', 0, 0.9)
    line['config']['optim']['learning_rate'] = 0.25
    put(root, line)
    with pytest.raises(InputError, match='does not have its hash'):
        tables.table('few', root)


def test_config_file_that_is_gone_is_refused(root):
    put(root, result(root, 'a', 0, 0.9))
    (root / 'configs/a.py').unlink()
    with pytest.raises(InputError, match=r'there is no recipe configs/a.py'):
        tables.table('few', root)


def test_unknown_row_and_twofold_seed_are_refused(root):
    path = root / 'experiments/results/few.jsonl'
    line = result(root, 'a', 0, 0.9)
    tables.write_lines(path, [line, line])
    with pytest.raises(InputError, match=r'few.jsonl:2 .*stands there twice'):
        tables.table('few', root)
    tables.write_lines(path, [line | {'row': 'aa'}])
    with pytest.raises(InputError, match="no such row; did you mean 'a'"):
        tables.table('few', root)


def test_a_line_that_is_not_json_is_named(root):
    (root / 'experiments/results/few.jsonl').write_text('{"row": "a"}\n{"row"\n')
    with pytest.raises(InputError, match=r'few.jsonl:2 is not JSON'):
        tables.table('few', root)


def test_result_of_another_config_is_refused(root):
    with pytest.raises(InputError, match='made by another config'):
        result(root, 'a', 0, 0.9, config_hash='0' * 12)


# Running.


def test_seed_comes_last_or_where_the_row_puts_it():
    assert tables.seeded({'overrides': ('a=1',)}, 3) == ['a=1', 'seed=3']
    assert tables.seeded({'overrides': ('pre.seed={seed}',)}, 3) == ['pre.seed=3']


def test_only_runs_without_a_line_are_pending(root):
    assert missing(root) == [('a', 0), ('a', 1), ('a', 2), ('b', 0)]
    put(root, result(root, 'a', 1, 0.9), result(root, 'b', 0, 0.9))
    assert missing(root) == [('a', 0), ('a', 2)]


def test_a_new_line_replaces_that_of_the_same_row_and_seed(root):
    put(root, result(root, 'a', 0, 0.1), result(root, 'b', 0, 0.2), result(root, 'a', 0, 0.3))
    lines = tables.read_lines(root / 'experiments/results/few.jsonl')
    assert [(x['row'], x['values']['5-way 1-shot']['mean']) for x in lines] == [
        ('b', 0.2),
        ('a', 0.3),
    ]


def test_no_path_of_a_machine_gets_into_a_line(root):
    row = {'name': 'a', 'config': 'configs/a.py', 'overrides': ('data.dir=/home/somebody',)}
    config = load_config(row['config'], tables.seeded(row, 0), root)
    assert config.data.dir == '/home/somebody'
    assert tables.published_config(config)['data']['dir'] == ''
    assert not tables.changed({'config': tables.published_config(config)}, config)


def test_config_is_what_main_would_get(root):
    config = load_config('configs/a.py:other', ['eval.queries=7', 'seed=3'], root)
    assert (config.batch_size, config.eval.queries, config.seed) == (16, 7, 3)
    with pytest.raises(InputError, match='quer'):
        load_config('configs/a.py', ['eval.querys=7'], root)


# Speed.

SPEED_TABLE = tables.load_rows('speed')


def speed(peer, train, evaluation, rss, first, **more):
    line = {'peer': peer, 'workload': 'Work', 'ours': peer == 'ours', 'quiet': True}
    line |= {'train_tasks_per_s': train, 'eval_tasks_per_s': evaluation, 'machine': '2 CPU cores'}
    return line | {'peak_rss_mb': rss, 'first_step_s': first, **more}


def test_speed_table_by_hand():
    lines = [speed('ours', t, 100.0, 500.0, 6.0, jax='0.10') for t in (40.0, 60.0, 44.0)]
    lines += [
        speed('ours', 1.0, 1.0, 1.0, 1.0, quiet=False),
        speed('p', 20.0, 50.0, 400.0, 3.0),
        speed('q', 22.0, 40.0, 600.0, 2.0),
    ]
    # Ratios: 44 / 22, 100 / 50, 500 / 400, 6 / 2; the noisy run does not count.
    assert SPEED_TABLE.table(lines).startswith(
        'Work; 2 CPU cores, jax 0.10.\n\n'
        '|  | training tasks/s | evaluation tasks/s | peak memory, MB | first step, s | runs |\n'
        '| --- | --- | --- | --- | --- | --- |\n'
        '| ours | 44.0 | 100.0 | 500 | 6.0 | 3 |\n'
        '| p | 20.0 | 50.0 | 400 | 3.0 | 1 |\n'
        '| q | 22.0 | 40.0 | 600 | 2.0 | 1 |\n'
        '| ours / best peer | 2.00 | 2.00 | 1.25 | 3.00 |  |\n'
    )


def test_noisy_runs_count_where_there_is_no_other():
    assert '| p | 20.0 | 50.0 | 400 | 3.0 | 1 (not quiet) |' in SPEED_TABLE.table(
        [speed('p', 20.0, 50.0, 400.0, 3.0, quiet=False)]
    )


def test_a_command_gives_its_last_line():
    code = 'import json; print("hello"); print(json.dumps({"peer": "p"}))'
    line = side_by_side.run(shlex.join([sys.executable, '-c', code]), 60)
    assert line['peer'] == 'p'


@pytest.mark.parametrize('batch_norm', ['transductive', 'inductive'])
def test_bench_prints_one_line_with_the_keys_of_the_peers(python, batch_norm):
    small = 'net.features=4 batch_size=2 steps_per_call=2 num_steps=4 log_every=2 eval_every=4'
    small += f' save_every=4 eval.episodes=10 method.batch_norm={batch_norm}'
    done = python(
        'experiments/bench.py', '--config=configs/bench_protonet.py', '--data=random',
        *(f'--config.{f}' for f in small.split()), '--shape=6,17,16,16,1', '--eval_tasks=4',
        '--seconds=0.1', '--eval_seconds=0.1',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [text] = done.stdout.splitlines()
    line = json.loads(text)
    for key in ('train_cores', 'eval_cores', 'load_before', 'load_after', 'train_step_ms', 'args'):
        assert key in line
    for key, *_ in SPEED_TABLE.SPEED:
        assert line[key] > 0
    assert line['config'] == 'configs/bench_protonet.py'
    assert ('eval_embedded_tasks_per_s' in line) == (batch_norm == 'inductive')


def test_rows_of_one_trained_model_are_one_trial(tmp_path):
    table = tables.load_rows('omniglot_fewshot').ROWS
    missing = list(run_rows.pending(table, [], only='relation,protonet_lists,protonet'))
    [protonet, relation] = run_rows.group_rows(missing, tmp_path, table)
    assert protonet.name == 'protonet seed 0 + protonet_lists seed 0'
    assert [run.workdir for run in protonet.runs] == [protonet.runs[0].workdir] * 2
    assert 'data.turns_eval=4' in protonet.runs[1].overrides
    assert '--config.eval_only=True' in protonet.runs[1].command
    assert [r.result.name for r in relation.runs] == ['result.json']


def test_a_row_that_is_not_there_is_named(tmp_path):
    rows = tables.load_rows('omniglot_fewshot').ROWS
    with pytest.raises(InputError, match='no row relatoin'):
        run_rows.wanted(rows, tmp_path / 'none.jsonl', only='relatoin')
