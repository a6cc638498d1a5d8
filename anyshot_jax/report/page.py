"""The page around the parts: HTML pieces, and the style sheet for light, dark, phone and paper."""

import html
import re
from collections.abc import Iterable, Sequence

from anyshot_jax.types import Measure


def escape(text: object) -> str:
    """Any text as HTML: markup, control characters and broken Unicode can do no harm."""
    clean = re.sub(r'[\x00-\x1f\x7f-\x9f]', ' ', str(text)).encode('utf-8', 'replace').decode()
    return html.escape(clean)


def name(text: object) -> str:
    """A user's string; <bdi> keeps right-to-left names from reordering what stands around them."""
    return f'<bdi>{escape(text)}</bdi>'


def note(text: str) -> str:
    """A line instead of a part that has nothing to show."""
    return f'<p class="note">{escape(text)}</p>'


def section(anchor: str, title: str, *parts: str) -> str:
    """A part of the page."""
    return f'<section id="{anchor}"><h2>{escape(title)}</h2>{"".join(parts)}</section>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], style: str = '') -> str:
    """A table; cells are HTML."""
    top = ''.join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = ''.join(f'<tr>{"".join(f"<td>{cell}</td>" for cell in row)}</tr>' for row in rows)
    return (
        f'<div class="scroll"><table class="{style}"><thead><tr>{top}</tr></thead>'
        f'<tbody>{body}</tbody></table></div>'
    )


def fields(rows: Iterable[tuple[str, object]]) -> str:
    """Names and values in columns."""
    pairs = (f'<div><dt>{escape(k)}</dt><dd>{name(v)}</dd></div>' for k, v in rows)
    return f'<dl>{"".join(pairs)}</dl>'


def percent(share: float | None) -> str:
    """For example 98.20 %."""
    return '&ndash;' if share is None else f'{share * 100:.2f} %'


def amount(value: float | None, half: float | None, measure: Measure) -> tuple[str, str]:
    """A value and half its interval as HTML: '98.20 %', '± 0.20 %' or '0.3102', '± 0.0100'."""
    if measure.percent:
        return percent(value), '' if half is None else f'± {half * 100:.2f} %'
    shown = '&ndash;' if value is None else f'{value:.4f}'
    return shown, '' if half is None else f'± {half:.4f}'


def meter(share: float | None, chance: float | None) -> str:
    """A bar from 0 to 100 % with a tick at chance."""
    if share is None:
        return ''
    tick = '' if chance is None else f'<u style="left:{chance * 100:.1f}%"></u>'
    wide = min(max(share, 0.0), 1.0) * 100
    return f'<span class="meter" aria-hidden="true"><i style="width:{wide:.1f}%"></i>{tick}</span>'


def document(title: str, body: str) -> str:
    """The whole page. Its policy forbids every load, so that nothing in it can reach out."""
    body = re.sub(r'(?<=\d) %', '&nbsp;%', body)  # a number and its sign stay on one line
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n'
        f'<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n'
    )


CLASSES = ''.join(f'.c{k}{{--c:hsl({k * 30} var(--sat) var(--lum{k % 2}))}}' for k in range(12))

STYLE = (
    """
:root{--page:#fff;--soft:#f4f5f7;--rule:#dfe2e7;--ink:#191c21;--dim:#5b626d;--blue:37 88 209;
--green:#177245;--red:#c02b2b;--redtint:192 43 43;--k0:#8a919c;--k1:#2558d1;--k2:#c4591a;
--k3:#177a6b;--k4:#8a3fb8;--k5:#a07a00;--sat:66%;--lum0:36%;--lum1:39%;--on:#fff}
@media (prefers-color-scheme:dark){:root{--page:#13161a;--soft:#1c2026;--rule:#333a44;
--ink:#e7eaee;--dim:#9ba4b0;--blue:122 162 255;--green:#5fce95;--red:#ff8078;
--redtint:255 128 120;--k0:#7c8592;--k1:#7aa2ff;--k2:#f49b62;--k3:#55c9b5;--k4:#c990ee;
--k5:#dcb74a;--sat:62%;--lum0:60%;--lum1:72%;--on:#13161a}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:62rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:clamp(1.7rem,5vw,2.5rem);line-height:1.15;letter-spacing:-.02em;margin:.2rem 0 .6rem;
overflow-wrap:anywhere}
h2{font-size:1.3rem;letter-spacing:-.01em;line-height:1.25;margin:0 0 .5rem}
section{border-top:1px solid var(--rule);margin-top:2.6rem;padding-top:1.5rem}
p{margin:.4rem 0 .9rem;max-width:46rem}
.dim,.note,figcaption{color:var(--dim)}
.kicker{color:var(--dim);margin:0;font-size:.88rem}
.note{border-left:3px solid var(--rule);padding:.1rem 0 .1rem .8rem;margin-top:1.5rem}
nav{margin:1.4rem 0 0;display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;font-size:.92rem}
a{color:rgb(var(--blue));text-underline-offset:.2em}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:.8rem;
margin:1.4rem 0;padding:0;list-style:none}
.tiles li{background:var(--soft);border-radius:10px;padding:.8rem 1rem .7rem}
.tiles b{display:block;font-size:2rem;font-weight:650;letter-spacing:-.02em;line-height:1.2}
.tiles span{color:var(--dim);font-size:.9rem}
.scroll{overflow-x:auto;margin:.8rem 0 1rem}
table{border-collapse:collapse;font-size:.94rem}
th,td{text-align:right;padding:.42rem .8rem;border-bottom:1px solid var(--rule);white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}
thead th{color:var(--dim);font-weight:500;font-size:.86rem}
.meter{display:block;position:relative;width:11rem;height:.55rem;border-radius:3px;
background:var(--soft);outline:1px solid var(--rule)}
.meter i{position:absolute;inset:0 auto 0 0;background:rgb(var(--blue));border-radius:3px 0 0 3px}
.meter u{position:absolute;top:-3px;bottom:-3px;width:2px;background:var(--ink)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));gap:1.2rem}
figure{margin:0}
.charts figcaption{font-size:.9rem;color:var(--ink);font-weight:600}
svg{display:block;width:100%;height:auto}
svg text{font-size:13px;fill:var(--dim);font-family:inherit}
.grid{stroke:var(--rule);stroke-width:1}
.mark{stroke:var(--ink);stroke-width:1.2;stroke-dasharray:4 4}
.k0{--k:var(--k0)}.k1{--k:var(--k1)}.k2{--k:var(--k2)}.k3{--k:var(--k3)}.k4{--k:var(--k4)}
.k5{--k:var(--k5)}
.line{fill:none;stroke:var(--k);stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}
.line.faint{stroke-width:1;opacity:.35}
.line.k2,.key .k2{stroke-dasharray:8 5}.line.k3,.key .k3{stroke-dasharray:2 5}
.line.k4,.key .k4{stroke-dasharray:9 4 2 4}.line.k5,.key .k5{stroke-dasharray:14 5}
.band{fill:var(--k);opacity:.16}
.dot{fill:var(--k)}
.key{display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;margin:.15rem 0 .4rem;padding:0;list-style:none;
font-size:.88rem;color:var(--dim)}
.key svg{display:inline-block;width:26px;height:10px;margin-right:.4rem;stroke:var(--k)}
details{margin:.8rem 0}summary{cursor:pointer;color:var(--dim);font-size:.92rem}
.item{display:block;width:56px;height:56px;border-radius:5px;background:var(--soft);
object-fit:contain}
.item.small{image-rendering:pixelated}
.bars rect{fill:var(--k1)}.bars path{stroke:var(--dim);stroke-width:.5}
.way{display:grid;grid-template-columns:11rem auto 1fr;gap:.4rem 1.4rem;padding:.8rem 0;
border-bottom:1px solid var(--rule);align-items:start}
.way h3{font-size:1rem;line-height:1.3;margin:0;font-weight:600;overflow-wrap:anywhere}
.way h3+p{font-size:.88rem;margin:.15rem 0 0;color:var(--dim)}
.strip{display:flex;flex-wrap:wrap;gap:.5rem .3rem}
.strip>.label{flex-basis:100%;font-size:.8rem;color:var(--dim);line-height:1}
.support{max-width:19rem}
.number{display:inline-block;min-width:1.5em;padding:0 .3em;border-radius:1em;text-align:center;
font-size:.85em;line-height:1.5;background:var(--ink);color:var(--page);margin-right:.35em;
font-weight:600}
.number[class*=" c"]{background:var(--c);color:var(--on)}
.query{width:70px;font-size:.78rem;line-height:1.25;text-align:center}
.query .item{border:3px solid var(--green);width:62px;height:62px;margin:0 auto .15rem}
.query.wrong .item{border-color:var(--red);border-style:dashed}
.query figcaption{color:var(--green);white-space:nowrap}
.query.wrong figcaption{color:var(--red)}
.matrix{font-size:.88rem;border-collapse:separate;border-spacing:2px}
.matrix th,.matrix td{border:0;padding:.2rem .3rem;text-align:center;vertical-align:middle;
font-weight:400}
.matrix tbody td{min-width:3.4rem;height:3rem;border-radius:4px;background:var(--soft)}
.matrix thead .item{margin:0 auto .25rem}
.matrix .item{width:36px;height:36px;flex:none}
.matrix .number{margin:0;font-size:.75rem}
.matrix .who{display:flex;gap:.5rem;align-items:center;justify-content:flex-end;text-align:right;
line-height:1.25;white-space:normal}
.matrix td.full{color:var(--on)}
.many{font-size:.74rem;border-spacing:1px}
.many tbody td{min-width:2.15rem;height:2.2rem;padding:.1rem}
.many .item{width:28px;height:28px}.many th{padding:.1rem!important}
.pair{display:flex;flex-wrap:wrap;gap:.6rem 1.6rem;align-items:center;margin:.4rem 0 1rem}
.pair figure{display:flex;gap:.6rem;align-items:center;max-width:20rem;overflow-wrap:anywhere;
line-height:1.3}
.atlas{display:grid;grid-template-columns:minmax(0,1fr) 15rem;gap:1rem 1.8rem;align-items:start}
.atlas ol{list-style:none;margin:0;padding:0;font-size:.9rem;line-height:1.3}
.atlas li{padding:.22rem 0;overflow-wrap:anywhere}
.map{background:var(--soft);border-radius:10px}
.map image{image-rendering:pixelated}
.spoke{stroke:var(--c);stroke-width:1;opacity:.28;fill:none}
.lead{stroke:var(--c);stroke-width:1.6;fill:none}
.spot{fill:var(--c);stroke:var(--soft);stroke-width:1}
.frame{fill:none;stroke:var(--c);stroke-width:2.5}
.sign{fill:var(--c)}svg text.sign{fill:var(--on);font-weight:700}
.shot{display:block;border-radius:4px}
.finds{display:grid;gap:.9rem 1.4rem;
grid-template-columns:repeat(auto-fill,minmax(min(25rem,100%),1fr))}
.find{display:grid;grid-template-columns:2fr 2fr 1fr;gap:4px;align-items:start;align-content:start}
.find .shot{width:100%}.find div{display:grid;gap:4px}
.find figcaption{grid-column:1/-1;font-size:.82rem;line-height:1.3}
.types .shot{width:84px}.types .query{width:90px}
.types .query .shot{border:3px solid var(--green);width:90px;margin-bottom:.15rem}
.types .query.wrong .shot{border-color:var(--red);border-style:dashed}
.types .way{grid-template-columns:8rem auto 1fr}.types .support{max-width:12rem}
.answers{display:grid;gap:.7rem 1.2rem;margin:.8rem 0 1.4rem;
grid-template-columns:repeat(auto-fill,minmax(min(18rem,100%),1fr))}
.answer{display:grid;grid-template-columns:72px 48px 1fr;gap:.2rem .5rem;align-items:start;
font-size:.82rem;line-height:1.3;overflow-wrap:anywhere;min-width:0}
.answer>.item{width:72px;height:72px}.answer>.item+.item{width:48px;height:48px}
.answer b{display:block;font-size:.92rem}.answer.right b{color:var(--green)}
.answer.wrong b{color:var(--red)}.answer.wrong>.item:first-child{outline:3px dashed var(--red)}
.classes td{vertical-align:middle}.classes .text{white-space:normal;text-align:left;
min-width:12rem;max-width:24rem;font-size:.86rem;line-height:1.35}
.who>span:not(.number){max-width:13rem;overflow-wrap:break-word}
.hard td{vertical-align:middle;white-space:normal}
.hard td:nth-child(2){white-space:nowrap}
.hard .who,.classes .who{display:flex;gap:.7rem;align-items:center;text-align:left;
line-height:1.3}
.hard .item,.classes .item{width:44px;height:44px;flex:none}
.hard th:last-child{text-align:left}
dl{columns:2 20rem;column-gap:2.2rem;margin:.6rem 0 1.4rem;font-size:.9rem}
dl div{display:flex;gap:1rem;justify-content:space-between;border-bottom:1px solid var(--rule);
padding:.24rem 0;break-inside:avoid}
dt{color:var(--dim);overflow-wrap:anywhere}dd{margin:0;text-align:right;overflow-wrap:anywhere;
min-width:30%}
h3.sub{font-size:1rem;margin:1.2rem 0 .2rem}
pre{background:var(--soft);border-radius:8px;padding:.8rem 1rem;overflow-x:auto;font-size:.88rem;
font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media (max-width:44rem){main{padding:1.5rem .95rem 3rem}
.way,.types .way{grid-template-columns:1fr}.support{max-width:none}
.atlas{grid-template-columns:1fr}.atlas ol{columns:2 9rem}.atlas li{break-inside:avoid}
table{font-size:.88rem}th,td{padding-left:.4rem;padding-right:.4rem}
.result :is(th,td):nth-child(4),.hard :is(th,td):is(:nth-child(3),:nth-child(4)){display:none}
.who>span:not(.number){max-width:6.2rem}.hard .who{gap:.5rem}
.matrix{font-size:.8rem;border-spacing:1px}.matrix tbody td{min-width:2.6rem;height:2.6rem}
.matrix .who{gap:.3rem}.matrix .item{width:28px;height:28px}}
@media print{body{font-size:11pt}section{break-inside:avoid}}
"""
    + CLASSES
)
