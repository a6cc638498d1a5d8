"""What the README says is run: its install lines, its method, its tables."""

import json
import re
import statistics
from pathlib import Path

import pytest

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
    from anyshot_jax import train

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
    [mean] = train.run(config, tmp_path / 'run').values()
    records = map(json.loads, (tmp_path / 'run/metrics.jsonl').read_text().splitlines())
    losses = [r['loss'] for r in records if r['kind'] == 'train']
    assert statistics.mean(losses[-8:]) < 0.8 * statistics.mean(losses[:8])
    assert mean > 1 / config.eval.tasks[0][0] + 0.15
    assert (tmp_path / 'run/report.html').exists()


def test_tables_are_those_of_the_results(python):
    done = python('experiments/tables.py', '--check')
    assert done.returncode == 0, done.stderr
