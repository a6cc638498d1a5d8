"""The part of the page about a recipe whose stages are classifiers with and without a piece."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from anyshot_jax.report import tasks
from anyshot_jax.report.page import html, meter, name, note, paragraph, percent, section, table
from anyshot_jax.report.subject import Subject
from anyshot_jax.storage import files


def parts(subject: Subject) -> list[Markup]:
    """Tasks, where the data have them, and the ablation."""
    s = subject
    found = tasks.parts(s)
    return [*found, ablation(s.workdir, s.config.method.name)] if 'test' in s.data.roles else found


def ablation(workdir: Path, method: str) -> Markup:
    """Every stage of this recipe with that method that is finished, this one among them."""
    rows = []
    for folder in sorted(workdir.resolve().parent.iterdir(), key=_age):
        run, config = _read(folder / 'result.json'), _read(folder / 'config.json')
        fields = config.get('method', {})
        if not run or fields.get('name') != method:
            continue
        values: dict[str, dict] = run.get('values', {})
        first = next(iter(values.values()), {}).get('mean')
        graph = 'no' if not fields['alpha'] else f'{fields["alpha"]:g}'
        here = ' (this page)' if folder.name == workdir.resolve().name else ''
        rows.append(
            (
                html('{{ name }}{{ here }}', name=name(folder.name), here=here),
                fields['weights_from'] or 'none',
                graph,
                percent(first),
                meter(first, None),
            )
        )
    if not rows:
        return section('rungs', 'Ablation', note('No stage of this recipe is finished yet.'))
    intro = (
        'The classifiers among the stages of this run: which stage weighed the web images '
        '(truth: an oracle), how much the graph counts, and what share of the clean test images '
        'of novel classes is named rightly.'
    )
    head = ('stage', 'weights', 'graph', 'accuracy', '0 to 100 %')
    return section('rungs', 'Ablation', paragraph(intro), table(head, rows))


def _read(path: Path) -> dict:
    """The file's fields; none if it isn't there or damaged."""
    try:
        return files.read_json(path) or {}
    except (OSError, ValueError):
        return {}


def _age(folder: Path) -> tuple[Sequence[int], str]:
    """The order in which stages were finished, then their names."""
    result = folder / 'result.json'
    return ([result.stat().st_mtime_ns] if result.exists() else [], folder.name)
