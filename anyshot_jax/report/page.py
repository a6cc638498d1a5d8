"""HTML of the pages, through Jinja2: what is not known to be HTML is escaped."""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources

import jinja2
from markupsafe import Markup

from anyshot_jax.types import Measure

NOTHING = '\N{EN DASH}'  # in place of a number that isn't there


def _printable(value: object) -> str:
    """Control characters and broken Unicode of names can do no harm."""
    if isinstance(value, Markup):
        return value
    return re.sub(r'[\x00-\x1f\x7f-\x9f]', ' ', str(value)).encode('utf-8', 'replace').decode()


_JINJA = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, finalize=_printable, trim_blocks=True
)
_template = cache(_JINJA.from_string)


def html(source: str, /, **values: object) -> Markup:
    """HTML of a template: text among its values is escaped, HTML is kept."""
    return Markup(_template(source).render(values))


def join(parts: Iterable[object], between: str = '') -> Markup:
    """Parts one after the other; text among them is escaped."""
    return Markup(between).join(map(_printable, parts))


def name(text: object) -> Markup:
    """A user's string; <bdi> keeps right-to-left names from reordering what stands around them."""
    return html('<bdi>{{ text }}</bdi>', text=text)


def note(text: str) -> Markup:
    """A line instead of a part that has nothing to show."""
    return html('<p class="note">{{ text }}</p>', text=text)


def paragraph(text: object) -> Markup:
    return html('<p>{{ text }}</p>', text=text)


def section(anchor: str, title: str, *parts: object) -> Markup:
    """A part of the page."""
    return html(
        '<section id="{{ anchor }}"><h2>{{ title }}</h2>{{ body }}</section>',
        anchor=anchor, title=title, body=join(parts),
    )  # fmt: skip


def table(head: Sequence[str], rows: Iterable[Sequence[object]], style: str = '') -> Markup:
    """A table of cells, text or HTML."""
    return html(
        '<div class="scroll"><table class="{{ style }}"><thead><tr>'
        '{% for cell in head %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead><tbody>'
        '{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>'
        '{% endfor %}</tbody></table></div>',
        head=head, rows=rows, style=style,
    )  # fmt: skip


def fields(rows: Iterable[tuple[str, object]]) -> Markup:
    """Names and values in columns."""
    return html(
        '<dl>{% for key, value in rows %}<div><dt>{{ key }}</dt><dd><bdi>{{ value }}</bdi></dd>'
        '</div>{% endfor %}</dl>',
        rows=rows,
    )


def details(summary: str, body: object) -> Markup:
    """A part that is folded away until it is asked for."""
    return html(
        '<details><summary>{{ summary }}</summary>{{ body }}</details>', summary=summary, body=body
    )


def way(heading: object, told: str, strips: Iterable[tuple[str, object]]) -> Markup:
    """A class of a task: its name, what is told of it, and strips of items under their labels.

    The first strip is narrow, for examples.
    """
    return html(
        '<div class="way"><div><h3>{{ heading }}</h3><p>{{ told }}</p></div>'
        '{% for label, items in strips %}<div class="strip{{ " support" if loop.first }}">'
        '<span class="label">{{ label }}</span>{{ items }}</div>{% endfor %}</div>',
        heading=heading, told=told, strips=strips,
    )  # fmt: skip


def framed(image: Markup, right: bool, title: str, caption: object) -> Markup:
    """An image in the frame of a right or a wrong answer."""
    return html(
        '<figure class="query{{ "" if right else " wrong" }}" title="{{ title }}">{{ image }}'
        '<figcaption>{{ caption }}</figcaption></figure>',
        image=image, right=right, title=title, caption=caption,
    )  # fmt: skip


def percent(share: float | None) -> str:
    """For example 98.20 %."""
    return NOTHING if share is None else f'{share * 100:.2f} %'


def amount(value: float | None, half: float | None, measure: Measure) -> tuple[str, str]:
    """A value and half its interval: '98.20 %', '± 0.20 %' or '0.3102', '± 0.0100'."""
    if measure.percent:
        return percent(value), '' if half is None else f'± {half * 100:.2f} %'
    shown = NOTHING if value is None else f'{value:.4f}'
    return shown, '' if half is None else f'± {half:.4f}'


def meter(share: float | None, chance: float | None) -> Markup:
    """A bar from 0 to 100 % with a tick at chance."""
    if share is None:
        return Markup('')
    return html(
        '<span class="meter" aria-hidden="true"><i style="width:{{ wide }}%"></i>'
        '{% if chance is not none %}<u style="left:{{ chance }}%"></u>{% endif %}</span>',
        wide=f'{min(max(share, 0.0), 1.0) * 100:.1f}',
        chance=None if chance is None else f'{chance * 100:.1f}',
    )


def document(title: str, body: Markup) -> str:
    """The whole page; its policy forbids every load."""
    body = Markup(re.sub(r'(?<=\d) %', '&nbsp;%', body))  # a number and its sign stay together
    return str(html(_file('page.html'), title=title, body=body, style=Markup(style())))


def style() -> str:
    """The style sheet for light, dark, phone and paper."""
    return _file('page.css')


def _file(file: str) -> str:
    return resources.files('anyshot_jax.report').joinpath(file).read_text('utf-8')
