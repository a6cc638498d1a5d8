"""The part of the page about a population: its members side by side, and its settings."""

from typing import Any

from markupsafe import Markup

from anyshot_jax.report import charts, logs
from anyshot_jax.report.page import NOTHING, amount, details, html, note, paragraph, section, table

COLOURS = 5  # of the page's palette
SETTINGS = Markup('<h3 class="sub">Settings</h3>')


def part(run: logs.Run, shown: str) -> Markup:
    """Curves of all members' validations, and their numbers.

    Args:
      shown: hash of the config of the member that the rest of the page is about.
    """
    members, settings = run.members, run.settings
    if not members:
        return Markup()
    about = [member_name(m) for m in members if m.get('config_hash') == shown]
    names = [setting_name(s) for s in settings]
    intro = f'{len(members)} runs were trained by one program; each is as it would be alone. '
    if len(settings) > 1:
        intro += (
            'The result above is that of the setting that is best on validation, the mean over its '
            'seeds; the settings were compared on validation only. '
        )
    if about:
        intro += f'The rest of this page shows {about[0]}.'
    parts = [paragraph(intro), _curves(run, members, names)]
    tasks = list(run.values)
    if len(settings) > 1:
        head = ('setting', *tasks, 'seeds')
        parts += [SETTINGS, table(head, _settings(run, settings, tasks))]
    head = ('member', 'validation', 'best step', *tasks)
    rows = [_row(run, m, tasks) for m in members]
    parts.append(details('All members', table(head, rows)))
    return section('members', 'Members', *parts)


def setting_name(found: dict[str, Any]) -> str:
    """'method.inner_lr 0.4', or '' where nothing varies."""
    fields = found.get('setting')
    fields = fields if isinstance(fields, dict) else {}
    return ', '.join(f'{k} {v:g}' for k, v in fields.items())


def member_name(member: dict[str, Any]) -> str:
    return ', '.join(filter(None, [f'seed {member.get("seed")}', setting_name(member)]))


def _curves(run: logs.Run, members: list[dict], names: list[str]) -> Markup:
    seen = list(run.val[-1].get('members', {}))[:1] if run.val else []
    drawn = [_figure(run, members, names, run.train, 'loss', 'Training loss', percent=False)]
    for key in seen:
        of = {'percent': run.measure.percent}
        drawn.append(_figure(run, members, names, run.val, key, f'Validation, {key}', **of))
    return charts.side_by_side(drawn)


def _figure(run, members, names, records, key: str, title: str, *, percent: bool) -> Markup:
    series, named = [], set()
    for i, member in enumerate(members):
        own = setting_name(member)
        columns = [r.get('members', {}).get(key) or [] for r in records]
        with_own = [
            {**r, 'own': (*c, *[None] * (i + 1))[i]} for r, c in zip(records, columns, strict=True)
        ]
        x, y = logs.column(with_own, 'own')
        colour = 1 + (names.index(own) if own in names else 0) % COLOURS
        label = (own or 'a seed') if own not in named else ''
        if x:
            named.add(own)
            series.append(charts.Series(label, x, y, colour))
    if not series:
        return note(f'{title}: nothing to draw, no member has values.')
    label = f'{title} of {len(series)} members over training steps.'
    svg = charts.lines(series, label=label, mark=None, percent=percent)
    return charts.figure(title, charts.key(series), svg)


def _settings(run: logs.Run, settings: list[dict], tasks: list[str]):
    for found in settings:
        cells = [_cell(run, found.get('values', {}), task) for task in tasks]
        first = html(
            '{{ setting }}{% if best %} <b>best on validation</b>{% endif %}',
            setting=setting_name(found), best=found.get('chosen'),
        )  # fmt: skip
        yield (first, *cells, found.get('seeds', 1))


def _row(run: logs.Run, member: dict, tasks: list[str]):
    if member.get('diverged'):
        step = f'diverged at step {member["diverged"]:,}'
        return (member_name(member), step, '', *['' for _ in tasks])
    seen = logs.number(member.get('validation'))
    value = NOTHING if seen is None else amount(seen, None, run.measure)[0]
    cells = [_cell(run, member.get('values') or {}, task) for task in tasks]
    return (member_name(member), value, f'{member.get("step", 0):,}', *cells)


def _cell(run: logs.Run, values: dict, task: str) -> str:
    v = values.get(task, {})
    mean, half = logs.number(v.get('mean')), logs.number(v.get('ci95'))
    return ' '.join(amount(mean, half, run.measure)).strip()
