"""The house: each room imports only rooms that stand below it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / 'anyshot_jax'
# From the ground up; rooms of one floor don't import each other.
FLOORS = (
    {'types', 'target'},
    {'config', 'command', 'storage', 'ops'},
    {'nets', 'runtime'},
    {'episodes'},
    {'stages', 'encoders'},
    {'defects', 'data'},
    {'methods'},
    {'report'},
    {'training'},
    {'classify', 'detect', 'sweep'},
    {'predict', 'serve', 'compare', 'export', 'main'},
    {'__main__'},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def room_of(file: Path, package: Path) -> str:
    return file.relative_to(package).parts[0].removesuffix('.py')


def imports(file: Path) -> set[str]:
    """Dotted names inside the package that a file imports, also within functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {n for n in names if n.startswith('anyshot_jax.')}


def upward(package: Path) -> list[str]:
    """The imports against the order, as 'methods/a.py imports training.loop'."""
    wrong = []
    for file in sorted(package.rglob('*.py')):
        room = room_of(file, package)
        if room == '__init__':  # the door of the package
            continue
        for name in sorted(imports(file)):
            other = name.split('.')[1]
            if other != room and FLOOR[other] >= FLOOR[room]:
                wrong.append(f'{file.relative_to(package)} imports {name[12:]}')
    return wrong


def test_every_room_stands_on_those_below():
    assert upward(PACKAGE) == []


def test_every_room_has_its_place():
    rooms = {p.name.removesuffix('.py') for p in PACKAGE.iterdir() if p.suffix in ('', '.py')}
    assert rooms - {'__init__', '__pycache__'} == set(FLOOR)


def test_methods_do_not_import_each_other():
    for file in sorted((PACKAGE / 'methods').glob('*.py')):
        others = {n for n in imports(file) if n.startswith('anyshot_jax.methods')}
        assert not others, f'{file.name} imports {others}'


def test_every_folder_says_what_it_holds():
    """A wheel leaves out a folder without __init__.py."""
    for folder in {file.parent for file in PACKAGE.rglob('*.py')}:
        assert ast.get_docstring(ast.parse((folder / '__init__.py').read_text())), folder


@pytest.mark.parametrize(
    'line', ['import anyshot_jax.training.loop', 'def f():\n    from anyshot_jax import sweep']
)
def test_one_import_upward_is_found(tmp_path, line):
    (tmp_path / 'methods').mkdir()
    (tmp_path / 'methods' / 'mine.py').write_text(f'from anyshot_jax.ops import x\n{line}\n')
    [wrong] = upward(tmp_path)
    assert wrong.startswith('methods/mine.py imports ')
