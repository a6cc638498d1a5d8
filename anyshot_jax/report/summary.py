"""The parts of the page that come from the files of a run: its numbers, curves and settings."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from anyshot_jax.report import charts, logs
from anyshot_jax.report.page import (
    NOTHING,
    amount,
    details,
    fields,
    html,
    join,
    meter,
    name,
    note,
    paragraph,
    section,
    table,
)
from anyshot_jax.types import Data

NETS = {
    'inductive': 'Batch norm was inductive: it used the running statistics of training, so every '
    'query is classified by itself.',
    'per_step': 'Batch norm was inductive: it used running statistics of every inner step from '
    'training, so every query is classified by itself.',
    'transductive': 'Batch norm was transductive: it took its statistics from all items of a task, '
    'the queries included, so queries help to classify each other. Compare these numbers with '
    'other transductive results only.',
}


NO_VALUES = note('No test values: result.json holds none yet.')
HEADLINE = (
    '<header><p class="kicker">{{ kicker }}</p><h1>{{ title }}</h1>'
    '{% if facts %}<p class="dim">{{ facts }}</p>{% endif %}'
    '{% if tiles %}<ul class="tiles">{% for what, value, more in tiles %}<li>'
    '<span>{{ what }}</span><b>{{ value }}</b>{% if more %}<span>{{ more }}</span>{% endif %}</li>'
    '{% endfor %}</ul>{% endif %}{{ values }}<p>{{ told }}</p>'
    '<nav>{% for anchor, text in links %}<a href="#{{ anchor }}">{{ text }}</a>{% endfor %}</nav>'
    '</header>'
)


def headline(run: logs.Run, data: Data, parts: Sequence[Markup]) -> Markup:
    """Header: method, data, the numbers reached, and links to the page's other parts."""
    result, net = run.result, run.part('net')
    seed = f'seed {result["seed"]}' if 'seed' in result else ''
    seed = f'{run.seeds} seeds from {seed}' if run.seeds > 1 else seed
    facts = [html('net {{ net }}', net=name(net)) if net else '', seed, _sizes(data)]
    tiles: list[tuple[object, ...]] = []
    rows: list[tuple[object, ...]] = []
    measure = run.measure
    tasks = any(logs.task_of(key)[0] for key in run.values)
    for key, value in run.values.items():
        mean, half = logs.number(value.get('mean')), logs.number(value.get('ci95'))
        ways, shots = logs.task_of(key)
        shown, about = amount(mean, half, measure)
        tiles.append((name(key), shown, about))
        found, number = f'{shown} {about}', value.get('n', '?')
        if measure.percent and not tasks:
            rows.append((name(key), found, meter(mean, None), number))
        elif measure.percent:
            chance = 1 / ways if ways else None
            often = NOTHING if chance is None else f'{chance * 100:.4g} %'
            how = re.sub(r'^\d+-way \d+-shot', '', key)  # 'transductive' and the like
            given = NOTHING if shots is None else f'{shots}{how}'
            first = (str(ways) if ways else name(key), given)
            rows.append((*first, found, meter(mean, chance), often, number))
        else:
            rows.append((name(key), found, number))
    head: tuple[str, ...] = ('task', f'{measure.name} ± 95 % CI', 'tasks')
    if measure.percent and not tasks:
        head = ('measure', f'{measure.name} ± 95 % CI', '0 to 100 %', _counted(run))
    elif measure.percent:
        counted = 'seeds' if run.seeds > 1 else 'episodes'
        head = ('ways', 'shots', f'{measure.name} ± 95 % CI', '0 to 100 %', 'chance', counted)
    values = table(head, rows, 'result') if rows else NO_VALUES
    return html(
        HEADLINE, kicker='anyshot_jax report', title=name(run.title), tiles=tiles[:4],
        facts=join((fact for fact in facts if fact), ' · '), values=values,
        told=_protocol(run), links=links(parts),
    )  # fmt: skip


def links(parts: Sequence[Markup]) -> list[tuple[str, Markup]]:
    """Anchor and title of every section of a page."""
    found = re.findall(r'<section id="([\w-]+)"><h2>(.*?)</h2>', ''.join(parts))
    return [(anchor, Markup(title)) for anchor, title in found]


def _protocol(run: logs.Run) -> str:
    result = run.result
    if not run.values:
        lines = []
    elif not run.measure.percent:
        lines = [f'The {run.measure.name} on functions never seen in training, mean over them.']
    elif any(logs.task_of(key)[0] for key in run.values):
        lines = [
            'Accuracy on classes never seen in training, mean over the '
            f'{"seeds" if run.seeds > 1 else "episodes"}; the vertical '
            'tick in a bar is chance.'
        ]
    else:
        lines = [f'Scores on classes never seen in training, mean over the {_counted(run)}.']
    kind = result.get('batch_norm')
    lines.append(NETS.get(kind, '') if isinstance(kind, str) else '')
    step = logs.number(result.get('step'))
    if not (run.train or run.val):
        lines.append('No training is on record.')
    elif step is not None and run.val:
        best = f'The parameters of step {step:,.0f} were the best on the validation'
        lines.append(f'{best} {"classes" if run.measure.percent else "functions"}.')
    elif step is not None:
        lines.append(f'The parameters are those of step {step:,.0f}; no validation chose them.')
    if run.values:
        what = 'classes' if run.measure.percent else 'functions'
        after = ', after that' if run.val else ''
        lines.append(f'The test {what} were evaluated once{after}.')
    return ' '.join(line for line in lines if line)


def _counted(run: logs.Run) -> str:
    """Kind of values that aren't of tasks of so many ways."""
    if run.seeds > 1:
        return 'seeds'
    images = 'images or regions'
    counted = {'anomaly': 'draws', 'patchcore': images, 'patch_net': images}
    return counted.get(run.part('method'), 'queries')


def curves(run: logs.Run) -> Markup:
    """Train loss; train and validation accuracy."""
    title, best = 'Learning curves', logs.number(run.result.get('step'))
    loss = _with_mean('train', *logs.column(run.train, 'loss'))
    accuracy = _with_mean('train', *logs.column(run.train, 'accuracy'))
    keys = sorted({k for r in run.val for k in r} - {'step', 'kind'}, key=logs.natural)
    keys = [k for k in keys if not k.endswith('/ci95')]
    shown = []
    for i, key in enumerate(keys):
        x, y = logs.column(run.val, key)
        half = dict(zip(*logs.column(run.val, key + '/ci95'), strict=True))
        if x:
            # Errors may span orders of magnitude: their axis is a logarithm, which has no bands.
            banded = half and run.measure.percent
            band = [half.get(step, 0.0) for step in x] if banded else None
            shown.append(charts.Series(f'validation {key}', x, y, 1 + i % 5, band))
    if not (loss or accuracy or shown):
        return section(
            'curves', title, note('Nothing to draw: the run logged no training metrics.')
        )
    mark = best if run.val else None
    drawn = [_figure('Loss', loss, mark, percent=False)]
    measure = run.measure
    title_of = measure.name.capitalize()
    drawn.append(_figure(title_of, accuracy + shown, mark, percent=measure.percent))
    intro = 'Grey: training, each logged value thin and their running mean thick. '
    if shown:
        what = 'classes' if measure.percent else 'functions'
        intro += f'In colour: {measure.name} on the validation {what}'
        intro += ', in a band that holds 95 % confidence. ' if measure.percent else '. '
    if mark is not None:
        intro += 'The dashed line marks the step whose parameters were kept.'
    return section(
        'curves',
        title,
        paragraph(intro),
        charts.side_by_side([d for d in drawn if d]),
        _numbers(run, keys),
    )


def _with_mean(label: str, x: list[float], y: list[float]) -> list[charts.Series]:
    """The values and, when there are many, their running mean."""
    if not x:
        return []
    if len(x) < 12:
        return [charts.Series(label, x, y, 0)]
    mean = charts.smooth(y, max(5, len(y) // 15))
    return [
        charts.Series('', charts.thin(x, 600), charts.thin(y, 600), 0, faint=True),
        charts.Series(label, charts.thin(x, 300), charts.thin(mean, 300), 0),
    ]


def _figure(title: str, series: list[charts.Series], mark: float | None, percent: bool) -> Markup:
    if not series:
        return Markup()
    named = [s for s in series if s.name]
    ends = '; '.join(
        f'{s.name} from {_value(s.y[0], percent)} to {_value(s.y[-1], percent)}' for s in named
    )
    label = f'{title} over training steps: {ends}.'
    svg = charts.lines(series, label=label, mark=mark, percent=percent)
    return charts.figure(title, charts.key(named), svg)


def _numbers(run: logs.Run, keys: list[str]) -> Markup:
    if not keys:
        return Markup()
    rows = []
    for record in run.val[-200:]:
        cells = []
        for key in keys:
            mean, half = logs.number(record.get(key)), logs.number(record.get(key + '/ci95'))
            cells.append(' '.join(amount(mean, half, run.measure)))
        rows.append([f'{record["step"]:,.0f}', *cells])
    return details('Validation numbers', table(['step', *keys], rows))


def settings(run: logs.Run, workdir: Path) -> Markup:
    """Everything that is needed to do it again."""
    result = run.result
    seconds = logs.number(result.get('seconds'))
    speeds = logs.column(run.train, 'steps_per_s')[1]
    machine: list[tuple[str, Any]] = [
        ('device', result.get('device')),
        ('devices', result.get('num_devices')),
        ('time', None if seconds is None else duration(seconds)),
        ('steps/s (median)', f'{np.median(speeds):.4g}' if speeds else None),
        ('config hash', result.get('config_hash')),
        ('workdir', workdir),
    ]
    for part, prefix in (('versions', ''), ('counts', 'count of ')):
        if isinstance(result.get(part), dict):
            machine += logs.flat(result[part], prefix).items()
    parts = [
        _sub('Machine, time and versions'),
        fields((k, v) for k, v in machine if v is not None),
        _sub('Config'),
        fields((k, _field(v)) for k, v in logs.flat(run.config).items()),
    ]
    source = run.config.get('config_file') or result.get('config_file')
    if source:
        command = (
            f'python -m anyshot_jax.main --config={shlex.quote(str(source))} '
            f'--workdir={shlex.quote(str(workdir))}'
        )
        parts += [_sub('Run it again'), html('<pre>{{ command }}</pre>', command=command)]
    return section(
        'settings', 'Settings', paragraph('Every field of the run, and what it ran on.'), *parts
    )


def _sub(title: str) -> Markup:
    return html('<h3 class="sub">{{ title }}</h3>', title=title)


def duration(seconds: float) -> str:
    """3725 -> '1 h 2 min 5 s'."""
    if seconds < 60:
        return f'{seconds:.1f} s'
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f'{hours} h ' if hours else '') + f'{minutes} min {rest} s'


def _sizes(data: Data) -> str:
    """Classes of every role, and the shape of an item."""
    parts = [
        f'{role} {len(d.offset):,}'
        + (f' \N{MULTIPLICATION SIGN} {d.turns} turns' if d.turns > 1 else '')
        for role, d in data.roles.items()
    ]
    shapes = {
        ' \N{MULTIPLICATION SIGN} '.join(map(str, d.x.shape[1:])) for d in data.roles.values()
    }
    return f'classes: {", ".join(parts)} · items of {" or ".join(sorted(shapes))}' if parts else ''


def _field(value: Any) -> Any:
    if isinstance(value, str):
        return value or '(empty)'
    return ', '.join(str(v) for v in value) or '(none)' if isinstance(value, list) else value


def _value(y: float, percent: bool) -> str:
    return f'{y * 100:.1f} %' if percent else f'{y:.4g}'
