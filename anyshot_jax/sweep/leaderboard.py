"""Leaderboard of a sweep: leaderboard.csv and leaderboard.html, ranked by validation."""

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from anyshot_jax.report import logs, page
from anyshot_jax.storage import files
from anyshot_jax.sweep import parallel_coordinates
from anyshot_jax.sweep.trials import Sweep, Trial
from anyshot_jax.training.intervals import interval_over_seeds
from anyshot_jax.types import ACCURACY, SQUARED_ERROR, InputError, Measure

STATUSES = ('finished', 'stopped', 'failed', 'unfinished', 'waiting')  # finished ones are ranked


class Entry(NamedTuple):
    """Outcome of a trial, read from its workdir."""

    trial: Trial
    status: str
    value: float | None  # the best of its validations
    step: int | None  # the step that had it
    selected: str  # the name of that value; '' before the first
    result: dict[str, Any]  # of result.json

    @property
    def tests(self) -> dict[str, dict[str, float]]:
        return self.result.get('values', {})


def read(trial: Trial, sweep: Sweep, failed: bool = False) -> Entry:
    """The trial as its files have it, whatever state they are in."""
    run = trial.runs[-1]
    result = files.read_json(run.result) or {}
    records = logs.metrics(run.folder / 'metrics.jsonl')[1]
    if not records and result and run.last.eval.role == 'val':  # nothing was trained
        means = {name: v['mean'] for name, v in result['values'].items()}
        records = [{'step': result['step'], **means}]
    names = [n for line in records for n in line if n not in ('step', 'kind')]
    selected = run.last.eval.select or next(iter(names), '')
    pairs = [(logs.number(line.get(selected)), line['step']) for line in records]
    found = [(value, step) for value, step in pairs if value is not None]
    sign = 1 if sweep.mode == 'max' else -1
    value, step = max(found, key=lambda f: sign * f[0], default=(None, None))
    begun = (run.folder / 'config.json').exists()
    stopped = sweep.search == 'asha' and trial.stopped.exists()
    states = (bool(result), stopped, failed, begun, True)
    status = next(s for s, true in zip(STATUSES, states, strict=True) if true)
    return Entry(trial, status, value, step, selected, result)


def rank(entries: Sequence[Entry], mode: str) -> list[Entry]:
    """The best first by validation, never by test; those that aren't finished after all others."""
    sign = -1 if mode == 'max' else 1
    worst = math.inf
    return sorted(
        entries,
        key=lambda e: (
            STATUSES.index(e.status),
            worst if e.value is None else sign * e.value,
            e.trial.name,
        ),
    )


def write(folder: Path, sweep: Sweep, trials: Sequence[Trial], failures: Mapping[str, str]) -> None:
    """Writes both files.

    Raises:
      InputError: the sweep's MODE isn't that of what was measured.
    """
    entries = rank([read(t, sweep, t.name in failures) for t in trials], sweep.mode)
    measure = _measure(entries, sweep)
    files.write_text(folder / 'leaderboard.csv', as_csv(entries, sweep))
    files.write_text(folder / 'leaderboard.html', as_html(entries, sweep, measure))


def _measure(entries: Sequence[Entry], sweep: Sweep) -> Measure:
    """Measure of the values; before the first result only its direction is known."""
    for entry in entries:
        if 'measure' in entry.result:
            measure = Measure(**entry.result['measure'])
            if measure.larger_is_better != (sweep.mode == 'max'):
                raise InputError(
                    f'{sweep.name}: MODE={sweep.mode!r}, but the trials measure {measure.name}: '
                    f"set MODE = '{'min' if sweep.mode == 'max' else 'max'}'"
                )
            return measure
    return ACCURACY if sweep.mode == 'max' else SQUARED_ERROR


def _tasks(entries: Sequence[Entry]) -> list[str]:
    return list(dict.fromkeys(name for e in entries for name in e.tests))


def _selected(entries: Sequence[Entry]) -> str:
    """Name of the ranking value's column."""
    return f'validation {next((e.selected for e in entries if e.selected), "")}'.strip()


def as_csv(entries: Sequence[Entry], sweep: Sweep) -> str:
    """A line a trial; shares are not per cent."""
    tasks = _tasks(entries)
    tested = [f'test {task}{part}' for task in tasks for part in ('', ' ci95')]
    selected = _selected(entries)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(
        ['rank', 'trial', *sweep.fields, 'seed', selected, 'step', *tested, 'seconds', 'status']
    )
    for number, e in enumerate(entries, 1):
        tests = [e.tests.get(task, {}).get(part, '') for task in tasks for part in ('mean', 'ci95')]
        writer.writerow(
            [
                number if e.status == 'finished' else '',
                e.trial.name,
                *(e.trial.setting[field] for field in sweep.fields),
                e.trial.seed,
                '' if e.value is None else e.value,
                '' if e.step is None else e.step,
                *tests,
                e.result.get('seconds', ''),
                e.status,
            ]
        )
    return out.getvalue()


def as_html(entries: Sequence[Entry], sweep: Sweep, measure: Measure) -> str:
    """One page without any load: the image, the trials, and the settings over their seeds."""
    done = [e for e in entries if e.status == 'finished']
    best = next((e for e in done if e.value is not None), None)
    selected = _selected(entries)
    value = page.amount(best.value, None, measure)[0] if best else ''
    head = page.html(
        '<p class="kicker">Sweep of {{ recipe }}</p><h1>{{ sweep }}</h1><p>{{ done }} of {{ all }} '
        'trials are finished.{% if best %} The best by {{ selected }} is {{ best }}: {{ value }}.'
        '{% endif %}</p>',
        recipe=page.name(sweep.config), sweep=page.name(sweep.name), done=len(done),
        all=len(entries), selected=selected, best=page.name(best.trial.name) if best else '',
        value=value,
    )  # fmt: skip
    parts = [
        head,
        _image(entries, sweep, selected, measure),
        _trials(entries, sweep, selected, measure),
    ]
    if len(sweep.seeds) > 1:
        parts.append(_settings(done, sweep, selected, measure))
    return page.document(f'Sweep {sweep.name}', page.join(parts))


def _image(entries: Sequence[Entry], sweep: Sweep, selected: str, measure: Measure) -> Markup:
    lines = [
        parallel_coordinates.Polyline(
            e.trial.name, [*e.trial.setting.values(), e.value], dashed=e.status != 'finished'
        )
        for e in entries
        if e.value is not None
    ]
    title = 'Parallel coordinates'
    if not lines:
        return page.section('parallel', title, page.note('No trial has been validated yet.'))
    axes = [*sweep.fields, selected]
    label = f'Parallel coordinates of {len(lines)} trials over {", ".join(axes)}; see the table.'
    low = sweep.mode == 'min'
    svg = parallel_coordinates.draw(axes, lines, label=label, best_low=low, percent=measure.percent)
    intro = page.paragraph(
        'A line is a trial, blue the best and orange the worst by the last axis; dashed ones have '
        'not come to their end.'
    )
    scrolled = page.html('<div class="scroll">{{ svg }}</div>', svg=svg)
    return page.section('parallel', title, intro, scrolled)


def _trials(entries: Sequence[Entry], sweep: Sweep, selected: str, measure: Measure) -> Markup:
    tasks = _tasks(entries)
    head = ['rank', *sweep.fields, 'seed', selected, 'step', *(f'test {t}' for t in tasks)]
    rows = []
    for number, e in enumerate(entries, 1):
        tests = [
            ' '.join(page.amount(v.get('mean'), v.get('ci95'), measure))
            for v in (e.tests.get(task, {}) for task in tasks)
        ]
        rows.append(
            [
                str(number) if e.status == 'finished' else '',
                *(page.name(e.trial.setting[field]) for field in sweep.fields),
                str(e.trial.seed),
                page.amount(e.value, None, measure)[0],
                '' if e.step is None else str(e.step),
                *tests,
                e.result.get('seconds', ''),
                e.status,
            ]
        )
    intro = page.paragraph(
        'Ranked by validation alone. Tests are of the step that validation chose, with a 95 % '
        'confidence interval over episodes.'
    )
    return page.section('trials', 'Trials', intro, page.table([*head, 'seconds', 'status'], rows))


def _settings(done: Sequence[Entry], sweep: Sweep, selected: str, measure: Measure) -> Markup:
    value_of = lambda group: [e.value for e in group if e.value is not None]
    groups: dict[str, list[Entry]] = {}
    for e in done:
        if value_of([e]):
            groups.setdefault(repr(e.trial.setting), []).append(e)
    sign = -1 if sweep.mode == 'max' else 1
    tasks = _tasks(done)
    rows = []
    for group in sorted(groups.values(), key=lambda g: sign * statistics.mean(value_of(g))):
        columns = [value_of(group)]
        columns += [[e.tests[t]['mean'] for e in group if t in e.tests] for t in tasks]
        setting = group[0].trial.setting
        cells = [' '.join(page.amount(*over_seeds(column), measure)) for column in columns]
        rows.append([*(page.name(setting[f]) for f in sweep.fields), str(len(group)), *cells])
    head = [*sweep.fields, 'seeds', selected, *(f'test {t}' for t in tasks)]
    intro = page.paragraph(
        "Means over the seeds of a setting, with a 95 % confidence interval (Student's t) "
        'where there are two or more.'
    )
    return page.section('settings', 'Settings', intro, page.table(head, rows))


def over_seeds(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and half its 95 % confidence interval."""
    if not values:
        return None, None
    half = interval_over_seeds(values) if len(values) > 1 else None
    return statistics.mean(values), half
