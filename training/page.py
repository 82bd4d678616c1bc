"""The bare page of a report: one file that fetches nothing and runs no script, light or dark as the system is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfb; --ink: #1d2226; --soft: #7b848b; --grid: #e5e7e9; --signal: #2b6cb0;
  --other: #c8681a; --third: #6b8e23; --alarm: #c22f2f; --label: #3f9b6c }
@media (prefers-color-scheme: dark) { :root { --paper: #15181b; --ink: #dfe3e6; --soft: #838d95; --grid: #2c3237;
  --signal: #6cabea; --other: #eb9b4d; --third: #a9c45f; --alarm: #ff6f63; --label: #62c690 } }
body { max-width: 66rem; margin: 2rem auto 4rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem }
h3 { font-size: 1rem; margin: 1.6rem 0 0 } p { margin: .3rem 0 .8rem } .soft { color: var(--soft) }
table { border-collapse: collapse; margin: .6rem 0 1rem; font-variant-numeric: tabular-nums }
th, td { padding: .18rem 1.1rem .18rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--grid) }
th { font-weight: 600 } th, td:first-child { white-space: nowrap }
td.number, th.number { text-align: right } .wide { overflow-x: auto }
.key span { display: inline-block; margin-right: 1.4rem } .key i { display: inline-block; width: .9rem; height: .6rem;
  margin-right: .4rem } .chart { display: block; width: 100%; height: auto; margin: .3rem 0; font-family: inherit }
.chart * { stroke-linejoin: round; stroke-linecap: butt } a { color: inherit; text-decoration-color: var(--soft) }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: .8rem 0 1.2rem } .tiles div { flex: 1 1 7rem;
  padding: .5rem .8rem .6rem; border: 1px solid var(--grid); border-radius: 6px } .tiles b { display: block;
  font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums } .tiles span { color: var(--soft);
  font-size: .85rem }
"""


class Link(NamedTuple):
    """A cell of a table that leads to a heading of the page."""

    text: str
    anchor: str


Cell = str | float | Link | None


def page(title: str, body: Iterable[str]) -> str:
    """A whole document; the policy in its head forbids whatever is not in the file."""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n<h1>{escape(title)}</h1>",
            *body,
            "</html>\n",
        ]
    )


def heading(text: str, level: int = 2, anchor: str = "") -> str:
    """A section's, or with level 3 a picture's; links lead to its anchor."""
    mark = f' id="{escape(anchor)}"' if anchor else ""
    return f"<h{level}{mark}>{escape(text)}</h{level}>"


def paragraph(text: str, soft: bool = False) -> str:
    """Plain text; soft, where it only explains."""
    mark = ' class="soft"' if soft else ""
    return f"<p{mark}>{escape(text)}</p>"


def tiles(entries: Iterable[tuple[str, str, str]]) -> str:
    """The figures that are read first: (name, figure, remark)."""
    shown = (
        f"<div><span>{escape(name)}</span><b>{escape(figure)}</b><span>{escape(remark)}</span></div>"
        for name, figure, remark in entries
    )
    return f'<div class="tiles">{"".join(shown)}</div>'


def bullets(items: Iterable[str]) -> str:
    """Plain text, an item a line."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def key(entries: Iterable[tuple[str, str]]) -> str:
    """What the colours of the pictures below mean: (colour's name, meaning)."""
    spans = (f'<span><i style="background: var(--{colour})"></i>{escape(text)}</span>' for colour, text in entries)
    return f'<p class="key">{"".join(spans)}</p>'


def table(header: Sequence[str], rows: Iterable[Sequence[Cell]], right: Sequence[int] = ()) -> str:
    """Numbers to the right, with as many digits as say something, and the columns `right`; None is a hyphen."""
    body = [list(row) for row in rows]
    numeric = [i in right or any(isinstance(row[i], int | float) for row in body) for i in range(len(header))]
    marks = [' class="number"' if n else "" for n in numeric]
    head = "".join(f"<th{mark}>{escape(name)}</th>" for name, mark in zip(header, marks, strict=True))
    lines = ("".join(f"<td{mark}>{_cell(value)}</td>" for value, mark in zip(row, marks, strict=True)) for row in body)
    top = f"<tr>{head}</tr>" if any(header) else ""
    return f'<div class="wide"><table>{top}' + "".join(f"<tr>{line}</tr>" for line in lines) + "</table></div>"


def _cell(value: Cell) -> str:
    if value is None:
        return "-"
    if isinstance(value, Link):
        return f'<a href="#{escape(value.anchor)}">{escape(value.text)}</a>'
    if isinstance(value, str):
        return escape(value)
    return str(value) if isinstance(value, int) else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
