"""The page of `compare`: a table, a picture of the curves, the line to copy."""

from markupsafe import Markup

from anyshot_jax.compare.comparison import DEFAULT, Comparison, paired
from anyshot_jax.report import charts
from anyshot_jax.report.page import (
    document,
    fields,
    html,
    join,
    meter,
    name,
    note,
    paragraph,
    percent,
    section,
    table,
)

COLOURS = 6  # of the page's palette


def page(found: Comparison, title: str, settings: dict[str, str]) -> str:
    """The whole page."""
    head = html(
        '<header><h1>{{ title }}</h1><p>{{ advice }}</p>'
        '<pre>from anyshot_jax import AnyShotClassifier\n{{ line }}</pre></header>',
        title=name(title), advice=found.advice(), line=found.best().line,
    )  # fmt: skip
    last = section('settings', 'Settings', fields(settings.items()))
    return document(title, join([head, _table(found), _curves(found), _limits(found), last]))


def _table(found: Comparison) -> Markup:
    usual = next((r for r in found.rows if r.encoder == DEFAULT), None)
    rows = []
    for r in found.rows:
        against = ''
        if usual is not None and r is not usual:
            gain, half = paired(r.right, usual.right)
            against = f'{gain * 100:+.1f} ± {half * 100:.1f}'
        rows.append([
            name(r.encoder), r.head, join([percent(r.accuracy), meter(r.accuracy, None)]),
            f'{r.low * 100:.1f} to {r.high * 100:.1f} %', against,
            f'{found.seconds[r.encoder] * 1e3:.0f} ms', html('<code>{{ x }}</code>', x=r.line),
        ])  # fmt: skip
    columns = ['encoder', 'head', 'held out', '95 %', f'beside {DEFAULT}', 'one image', 'line']
    return section('encoders', 'Encoders and heads', table(columns, rows))


def _curves(found: Comparison) -> Markup:
    drawn = [c for c in found.curves if len(c.shots) > 1]
    if not drawn:
        return section('shots', 'Images a class', note('Too few images a class for a curve.'))
    series = [
        charts.Series(c.encoder, c.shots, c.mean, 1 + i % COLOURS, c.half)
        for i, c in enumerate(drawn)
    ]
    chart = charts.lines(
        series, label='Accuracy over images a class', mark=None, percent=True, axis='images a class'
    )
    said = f'{found.one_more()} Bands: 95 % over draws of the support; head LDA.'
    return section('shots', 'Images a class', chart, charts.key(series), paragraph(said))


def _limits(found: Comparison) -> Markup:
    lines = [
        f'{found.images:,} images of {found.classes:,} classes; each was held out once, in one of '
        'five parts. Images that show the same thing twice make every figure too high.'
    ]
    if found.alone:
        lines.append(f'{found.alone:,} classes have one image, which is never asked for.')
    lines += [f'{which} was not compared: {why}' for which, why in found.missing.items()]
    return section('limits', 'What was measured', *map(paragraph, lines))
