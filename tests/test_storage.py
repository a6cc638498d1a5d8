"""One writer, one lock: what is there stays whole, whoever writes, links or fills the disk."""

import ast
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from anyshot_jax import export
from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.predict import defects, run
from anyshot_jax.predict.table import Outputs
from anyshot_jax.storage import cache, files
from anyshot_jax.storage.lock import Lock, beside
from anyshot_jax.sweep import leaderboard, local
from anyshot_jax.sweep.trials import Sweep
from anyshot_jax.types import InputError

ROOT = Path(__file__).resolve().parent.parent


def fitted():
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    return AnyShotClassifier().fit(x, ['a'] * 3 + ['b'] * 3)


def table(path):
    outputs = Outputs(path.parent, {}, overwrite=True)
    with outputs, outputs.replacing(table=path) as fresh:
        fresh['table'].write_text('rows\n')


def saved(path):
    outputs = Outputs(path.parent, {}, overwrite=True)
    with outputs, outputs.replacing(model=path) as fresh:
        fitted().save(fresh['model'])


def cached(path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(path.parent))
    cache.cached('x', 0, lambda: {'a': np.zeros(3)})
    [made] = (path.parent / 'anyshot_jax').glob('x-*.npz')
    return made


def ranked(path):
    sweep = Sweep('mine', 'tiny', {'seed': (1,)})
    leaderboard.write(path.parent, sweep, [], {})


WRITERS = {
    'text': lambda path: files.write_text(path, 'new'),
    'artifacts': lambda path: files.save_artifacts(path, {'a': np.zeros(3)}),
    'model.safetensors': lambda path: fitted().save(path),
    'program.stablehlo': lambda path: export.write(fitted(), path, ('cpu',)),
    'predictions.csv': table,
    'saved.safetensors': saved,
    'leaderboard.csv': ranked,
}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize('name', WRITERS)
def test_modes_links_and_litter(tmp_path, name, umask):
    """The mode is the umask's, then that of the file before; no link, hard or soft, is followed."""
    path, victim = tmp_path / 'out' / name, tmp_path / 'victim'
    path.parent.mkdir()
    umask(0o027)
    WRITERS[name](path)
    assert mode(path) == 0o640
    path.chmod(0o604)
    WRITERS[name](path)
    assert mode(path) == 0o604
    size = path.stat().st_size
    for link in (os.symlink, os.link):
        victim.write_text('PRECIOUS')
        path.unlink()
        link(victim, path)
        WRITERS[name](path)
        assert victim.read_text() == 'PRECIOUS' and not path.is_symlink()
        assert path.stat().st_size == size
    more = {'program.stablehlo': {f'{name}.json'}}
    more |= {'leaderboard.csv': {'leaderboard.html'}}
    more |= {key: {'predictions.json'} for key in ('predictions.csv', 'saved.safetensors')}
    assert {p.name for p in path.parent.iterdir()} == {name} | more.get(name, set())


@pytest.mark.parametrize('name', WRITERS)
def test_a_full_disk_is_named_and_the_file_before_stays(tmp_path, name):
    """RLIMIT_FSIZE makes the system refuse the bytes, as a full disk does."""
    path = tmp_path / 'out' / name
    WRITERS[name](path)
    before, listed = path.read_bytes(), sorted(p.name for p in path.parent.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, hard))
    try:
        with pytest.raises(InputError, match=f'{path} (or .*)?c.*n.* be written: File too large'):
            WRITERS[name](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == listed


def test_a_trial_whose_log_cannot_grow_says_so(tmp_path):
    """The reason of its end would have been there; the one that is there is of before."""
    log = tmp_path / 'trial' / 'log.txt'
    with files.append_to(log) as f:
        f.write('step 20 of 400\n')
    process = object.__new__(local._Process)
    process.trial = SimpleNamespace(log=log)
    process._popen = SimpleNamespace(returncode=2)
    assert process.failure() == 'step 20 of 400'
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, hard))
    try:
        assert process.failure() == f'{log} could not be written: File too large'
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match=r'file/log\.txt could not be written'):
        files.append_to(tmp_path / 'file' / 'log.txt')


def test_a_cache_replaces_a_link_and_keeps_nothing_on_a_full_disk(tmp_path, monkeypatch, umask):
    made = cached(tmp_path / 'x', monkeypatch)
    assert mode(made) == 0o644
    made.unlink()
    (tmp_path / 'victim').write_text('PRECIOUS')
    made.symlink_to(tmp_path / 'victim')
    assert cached(tmp_path / 'x', monkeypatch) == made and not made.is_symlink()
    assert (tmp_path / 'victim').read_text() == 'PRECIOUS'


def test_an_error_while_writing_leaves_the_file_before(tmp_path):
    path = tmp_path / 'a'
    path.write_text('old')
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as f:
        f.write(b'half')
        assert len(list(tmp_path.iterdir())) == 2
        raise KeyboardInterrupt
    assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]


def test_nothing_else_writes():
    """Only storage/ opens files for writing."""
    allowed = {'predict/run.py': 2, 'predict/defects.py': 2}  # the fresh places of Outputs
    found = {}
    package = ROOT / 'anyshot_jax'
    for file in package.rglob('*.py'):
        name = str(file.relative_to(package))
        if name.startswith('storage/'):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and writes(node):
                found[name] = found.get(name, 0) + 1
    assert found == allowed


def writes(call: ast.Call) -> bool:
    """Whether it may write a file in place: x.open('w'), open(x, 'a'), x.write_text, mkstemp."""
    *owner, name = ast.unparse(call.func).split('.')
    if name in ('write_text', 'write_bytes'):
        return owner not in ([], ['files'])
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return name == 'mkstemp' or (name == 'open' and any(set(m) & set('wax+') for m in modes[-1:]))


HOLD = """
import sys
from pathlib import Path
from anyshot_jax.storage.lock import Lock
lock = Lock(Path(sys.argv[1]), 'taken')
print('held', flush=True)
sys.stdin.read()
"""


def test_the_second_process_is_refused_until_the_first_is_killed(tmp_path):
    file = tmp_path / 'folder' / '.lock'
    first = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(file)],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with first:
        assert first.stdout.readline() == b'held\n'
        with pytest.raises(InputError, match='taken'):
            Lock(file, 'taken')
        first.kill()
    with Lock(file, 'taken'), pytest.raises(InputError, match='taken'):
        Lock(file, 'taken')
    assert not list(file.parent.iterdir())


@pytest.mark.parametrize('kind', ['link', 'hard link', 'dangling', 'fifo', 'folder', 'content'])
def test_what_is_no_lock_is_refused_and_stays(tmp_path, kind):
    victim, file = tmp_path / 'victim', tmp_path / 'run' / '.lock'
    file.parent.mkdir()
    victim.write_text('PRECIOUS')
    {
        'link': lambda: file.symlink_to(victim),
        'hard link': lambda: file.hardlink_to(victim),
        'dangling': lambda: file.symlink_to(tmp_path / 'new'),
        'fifo': lambda: os.mkfifo(file),
        'folder': file.mkdir,
        'content': lambda: file.write_text('mine'),
    }[kind]()
    with pytest.raises(InputError, match=r'run/\.lock is no lock'):
        Lock(file, 'taken')
    assert victim.read_text() == 'PRECIOUS' and not (tmp_path / 'new').exists()
    assert os.path.lexists(file)


def test_an_export_and_a_table_are_of_one_call(tmp_path):
    path = tmp_path / 'a.stablehlo'
    with Lock(beside(path), ''), pytest.raises(InputError, match='is being written by another'):
        export.write(fitted(), path, ('cpu',))


def test_two_predictions_into_one_folder(tmp_path):
    refused = lambda text: pytest.raises(InputError, match=f'another call is writing {text}')
    with Outputs(tmp_path, {'query': 'a'}, False), refused('into'):
        Outputs(tmp_path, {'query': 'b'}, False)
    model = tmp_path / 'other' / 'm.safetensors'
    outputs = Outputs(tmp_path, {'query': 'b'}, False)
    with outputs, Lock(beside(model), ''), refused(str(model)), outputs.replacing(model=model):
        pass


@pytest.mark.parametrize('work', [run, defects])
def test_a_model_that_can_not_be_saved_is_refused_before_any_work(tmp_path, work):
    folder = {'support': 'none'} if work is run else {'good': 'none'}
    (tmp_path / 'file').touch()
    for name, message in (('a.txt', 'is a .safetensors file'), ('file/a.safetensors', 'no folder')):
        with pytest.raises(InputError, match=message):
            work.run(work.Request('none', str(tmp_path), save=str(tmp_path / name), **folder))


def test_what_killed_predictions_leave_goes_and_links_stay(tmp_path):
    (tmp_path / '.unfinished-abc').mkdir()
    (tmp_path / '.unfinished-abc' / 'predictions.csv').write_text('half')
    (tmp_path / 'precious').mkdir()
    (tmp_path / '.unfinished-link').symlink_to(tmp_path / 'precious')
    Outputs(tmp_path, {}, False)
    assert {p.name for p in tmp_path.iterdir()} >= {'precious', '.unfinished-link'}
    assert not (tmp_path / '.unfinished-abc').exists()
