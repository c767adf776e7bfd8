"""Pages that Kubeflow and a browser show as they are: one file, no script, nothing loaded from elsewhere, light and dark.

`page` is the shell and `table` a table; what is on a page is made where its facts are known (`statistics_page`,
`steps.validate`, the verdict).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from string import Template

_SHELL = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1c2430; --dim: #5b6675; --line: #d9dee5; --paper: #ffffff; --band: #f5f7f9;
  --first: #2f6fb2; --second: #c9822b; --good: #1f7a4d; --bad: #b3362b; --warn: #8a6410; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --dim: #9aa5b4; --line: #343c48; --paper: #14181e; --band: #1b2129;
  --first: #6ea8e6; --second: #e5a653; --good: #5cc48f; --bad: #f0867b; --warn: #d9b25a; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; } .dim { color: var(--dim); } .good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--dim); } th, td { padding: .4rem .75rem .4rem 0; vertical-align: top; border-bottom: 1px solid var(--line); }
tbody tr:hover { background: var(--band); } td.number, th.number { text-align: right; } code { font-size: .92em; }
svg .first { fill: var(--first); } svg .second { fill: var(--second); } svg text { fill: var(--ink); font-size: 11px; }
.key::before { content: "■ "; } .key.first { color: var(--first); } .key.second { color: var(--second); }
</style>
</head>
<body>
$body
</body>
</html>
"""
)


class Markup(str):
    """Text that is HTML already and must not be escaped."""

    __slots__ = ()


def page(title: str, body: str) -> str:
    """A whole HTML document. `title` is plain text; `body` is HTML and begins with its own heading."""
    return _SHELL.substitute(title=escape(title), body=body)


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as an HTML table with the first row's keys as its head; an empty string without rows.

    Texts are escaped, numbers set to the right, lists put one item on a line, None shown as a dash, `Markup` left as it is.
    """
    if not rows:
        return ""
    names = list(rows[0])
    head = "".join(f"<th{_align(rows[0][name])}>{escape(str(name))}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td{_align(row.get(name))}>{_cell(row.get(name))}</td>" for name in names) + "</tr>\n" for row in rows
    )
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n'


def _align(value: object) -> str:
    return ' class="number"' if isinstance(value, (int, float)) and not isinstance(value, bool) else ""


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, Markup):
        return value
    if isinstance(value, (list, tuple)):
        return "<br>".join(_cell(item) for item in value) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))
