"""The verdict as a page: one file that Kubeflow, MLflow and a browser show as it is. Pure: a verdict and its curves to HTML.

It reads from the top: the decision in one sentence, the figures behind it, every check with its interval drawn against its
bound, then where the model is strong and weak, and at the end what it was made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from mlpipelines.evaluation.drawings import curve_drawing, heat_map, interval_drawing
from mlpipelines.evaluation.verdict import BUDGETS, Check, ClassScore, Estimate, Score, Verdict, figure
from mlpipelines.pages import Markup, page, table

_SHOWN = 12
_MARKS = {True: ("good", "✔", "passed"), False: ("bad", "✘", "failed"), None: ("dim", "–", "not judged")}
_STYLE = """<style>
.seal { display: inline-block; padding: .15rem .7rem; border-radius: 1rem; font-weight: 600; color: var(--paper); }
.seal.blessed { background: var(--good); } .seal.rejected { background: var(--bad); } .seal.unchanged { background: var(--dim); }
.lead { font-size: 1.15rem; max-width: 62rem; margin: .75rem 0 1.25rem; }
.cards { display: flex; flex-wrap: wrap; gap: .75rem; } .card { flex: 1 1 11rem; border: 1px solid var(--line); border-radius: .6rem; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.3; } .card .dim { font-size: .88rem; }
td .ci { color: var(--dim); white-space: nowrap; font-size: .92em; } td .mark { font-weight: 700; } details { margin: .5rem 0; } summary { cursor: pointer; color: var(--dim); }
svg.interval { display: block; } svg.interval .zero { stroke: var(--line); stroke-width: 2; } svg .bound { stroke: var(--warn); stroke-dasharray: 3 2; fill: none; }
svg.interval .reach { stroke: currentColor; stroke-width: 3; opacity: .55; } svg.interval circle { fill: currentColor; }
.curves { display: flex; flex-wrap: wrap; gap: 2rem; } figure { margin: 0; width: 20rem; } figcaption { color: var(--dim); font-size: .9rem; }
svg.curve { width: 100%; } svg.curve .grid { stroke: var(--line); } svg.curve .line { fill: none; stroke: var(--first); stroke-width: 2; }
.bar { display: inline-block; width: 5rem; height: .6rem; background: var(--band); border-radius: .3rem; overflow: hidden; vertical-align: middle; margin-right: .5rem; }
.bar i { display: block; height: 100%; background: var(--first); }
table.heat { width: auto; border-collapse: separate; border-spacing: 2px; } table.heat th { font-weight: 400; font-size: .85rem; white-space: nowrap; max-width: 16rem; overflow: hidden; text-overflow: ellipsis; }
table.heat th, table.heat td { padding: .1rem .3rem; border: 0; } table.heat thead th { text-align: center; } table.heat td { text-align: center; min-width: 1.7rem; font-size: .78rem; border-radius: .2rem; }
table.heat td.right { background: color-mix(in srgb, var(--good) calc(var(--share) * 85%), var(--band)); }
table.heat td.wrong { background: color-mix(in srgb, var(--bad) calc(var(--share) * 160%), var(--band)); }
table.facts { width: auto; } table.facts td { overflow-wrap: anywhere; } table.facts td:first-child { color: var(--dim); white-space: nowrap; }
</style>
"""


def verdict_page(verdict: Verdict, curves: Mapping[str, Any]) -> str:
    """A whole HTML document. `curves` is what `curves.curve_data` returned."""
    parts = [
        _STYLE,
        _head(verdict),
        _section("Checks", _checks(verdict)),
        _section(
            "Metrics", _scores(verdict), f"On the sealed test set; intervals at {verdict.confidence:.0%}. A difference above 0 is better."
        ),
        _section("Curves", _curves(curves)),
        _section("Classes", _classes(verdict.classes)),
        _section("Confusion matrix", _matrix(curves), "Percent of each true class. Point at a cell for its count."),
        _section("What it was made from", _facts(verdict.facts)),
    ]
    return page(f"{verdict.model}: {verdict.outcome}", "".join(parts))


def _section(heading: str, body: str, note: str = "") -> str:
    told = f'<p class="dim">{escape(note)}</p>\n' if note else ""
    return f"<h2>{escape(heading)}</h2>\n{told}{body}\n" if body else ""


def _head(verdict: Verdict) -> str:
    sentence = verdict.title.removeprefix(f"{verdict.outcome.capitalize()}: ")
    return (
        f"<h1>{escape(verdict.model)}</h1>\n"
        f'<p><span class="seal {verdict.outcome}">{verdict.outcome}</span> <span class="dim">run {escape(verdict.facts.get("run", ""))}</span></p>\n'
        f'<p class="lead">{escape(sentence)}.</p>\n<div class="cards">{"".join(_cards(verdict))}</div>\n'
    )


def _cards(verdict: Verdict) -> Iterable[str]:
    main = verdict.checks[0]
    yield _card(f"{verdict.metric}, challenger", main.challenger, _range(main.challenger))
    yield _card(f"{verdict.metric}, opponent", main.opponent, verdict.opponent.name)
    yield _card("difference", main.difference, _range(main.difference))
    for check in verdict.checks:
        if check.check in BUDGETS:
            told = "model size" if check.check == "size" else "single request, median"
            yield _card(told, check.challenger, check.rule, BUDGETS[check.check])


def _card(name: str, value: Estimate | float | None, below: str, unit: str = "") -> str:
    shown = figure(value.value if isinstance(value, Estimate) else value)
    return f'<div class="card"><span class="dim">{escape(name)}</span><b>{shown} {unit}</b><span class="dim">{escape(below)}</span></div>'


def _checks(verdict: Verdict) -> str:
    """All checks but passed slices beyond the first dozen, which fold away."""
    first = [check for check in verdict.checks if check.check != "slice"]
    slices = sorted(
        (check for check in verdict.checks if check.check == "slice"), key=lambda check: {False: 0, True: 1, None: 2}[check.passed]
    )
    shown = max(_SHOWN, sum(check.passed is False for check in slices))
    reach = _reach(verdict.checks)
    body = table([_check_row(check, reach) for check in [*first, *slices[:shown]]])
    if rest := slices[shown:]:
        body += f"<details><summary>{len(rest):,} more slices</summary>{table([_check_row(check, reach) for check in rest])}</details>"
    return body


def _check_row(check: Check, reach: float) -> dict[str, object]:
    kind, mark, told = _MARKS[check.passed]
    subject = escape(check.slice or check.metric) if check.check not in BUDGETS else ""
    drawn = interval_drawing(check.difference, check.bound or 0.0, reach, passed=check.passed)
    return {
        "": Markup(f'<span class="mark {kind}" title="{told}">{mark}</span>'),
        "check": Markup(f"{check.check} <strong>{subject}</strong>"),
        "rows": check.rows or Markup(""),
        "challenger": check.challenger_text if check.check in BUDGETS else _estimate(check.challenger),
        "opponent": figure(check.opponent) if check.opponent is not None else "",
        "difference": _estimate(check.difference),
        " ": Markup(drawn),
        "rule": [text for text in (check.rule, _reason(check.reason, kind)) if text],
    }


def _reason(reason: str, kind: str) -> Markup:
    return Markup(f'<span class="{kind}">{escape(reason)}</span>') if reason else Markup("")


def _reach(checks: Iterable[Check]) -> float:
    """The scale of the drawn intervals: it holds every point estimate and most ends."""
    ends = sorted(
        abs(end) for check in checks if check.difference for end in (check.difference.low, check.difference.high) if end is not None
    )
    points = [abs(check.difference.value) for check in checks if check.difference]
    return max([*points, ends[int(len(ends) * 0.9)] if ends else 0.0, 1e-9]) * 1.1


def _scores(verdict: Verdict) -> str:
    return table([_score_row(score, verdict.opponent.name) for score in verdict.scores])


def _score_row(score: Score, opponent: str) -> dict[str, object]:
    return {
        "metric": Markup(
            f"<strong>{escape(score.metric)}</strong>" + ("" if score.higher_is_better else ' <span class="dim">(lower is better)</span>')
        ),
        "challenger": _estimate(score.challenger),
        opponent: figure(score.opponent) if score.opponent is not None else None,
        "difference": _estimate(score.difference),
    }


def _classes(classes: Sequence[ClassScore]) -> str:
    rows = [_class_row(score) for score in classes]
    body = table(rows[:_SHOWN])
    return body + (
        f"<details><summary>{len(rows) - _SHOWN:,} more classes</summary>{table(rows[_SHOWN:])}</details>" if rows[_SHOWN:] else ""
    )


def _class_row(score: ClassScore) -> dict[str, object]:
    return {
        "class": Markup(f"<strong>{escape(score.name)}</strong>"),
        "rows": score.rows,
        "precision": _estimate(score.precision, bar=True),
        "recall": _estimate(score.recall, bar=True),
        "F1": figure(score.f1),
        "F1, opponent": figure(score.opponent_f1),
    }


def _curves(curves: Mapping[str, Any]) -> str:
    drawn = []
    if recall := curves.get("precision_recall"):
        drawn.append(curve_drawing("Precision and recall", recall["recall"], recall["precision"], ("Recall", "precision")))
    if roc := curves.get("roc"):
        rates = roc["false_positive_rate"], roc["true_positive_rate"]
        drawn.append(curve_drawing("ROC", *rates, ("False positive rate", "true positive rate"), diagonal=True))
    return f'<div class="curves">{"".join(drawn)}</div>' if drawn else ""


def _matrix(curves: Mapping[str, Any]) -> str:
    matrix = curves.get("confusion_matrix")
    return heat_map(matrix["classes"], matrix["rows"]) if matrix else ""


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts.items())
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>' if rows else ""


def _estimate(estimate: Estimate | None, *, bar: bool = False) -> Markup | None:
    if estimate is None:
        return Markup("") if not bar else None
    drawn = f'<span class="bar"><i style="width:{max(0.0, min(1.0, estimate.value)):.0%}"></i></span>' if bar else ""
    return Markup(f'{drawn}{figure(estimate.value)} <span class="ci">{_range(estimate)}</span>')


def _range(estimate: Estimate | None) -> str:
    return "" if estimate is None or estimate.low is None else f"[{figure(estimate.low)}, {figure(estimate.high)}]"
