"""The page of the validate step: what is wrong with the data, or that nothing is, and how far each column moved."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tensorflow_metadata.proto.v0 import schema_pb2

from mlpipelines.pages import Markup, page, table
from mlpipelines.project import Project
from mlpipelines.validation.anomalies import Anomaly
from mlpipelines.validation.data_rules import Compared
from mlpipelines.validation.findings import Findings
from mlpipelines.validation.schemas import describe_schema


def validation_page(project: Project, found: Findings, *, schema: schema_pb2.Schema, reviewed: bool) -> str:
    """A whole HTML document.

    Args:
        project: for its name.
        found: what the rules said.
        schema: what the data was held against.
        reviewed: whether `schema` is accepted; otherwise it is a proposal.
    """
    warnings = [anomaly for anomaly in found.anomalies if not anomaly.rejects]
    parts = [
        f"<h1>{escape(project.name)}: validation</h1>\n{_headline(len(found.rejecting), reviewed=reviewed)}\n",
        _section("What is wrong", _table(found.rejecting)),
        _section("Worth a look", _table(warnings)),
        _section("Distance to the last accepted data", _distances(found.drift)),
        _section("Distance between training and validation rows", _distances(found.skew)),
        _section("The reviewed schema" if reviewed else "The proposed schema", table(describe_schema(schema))),
    ]
    return page(f"{project.name}: validation", "".join(parts))


def _headline(rejecting: int, *, reviewed: bool) -> str:
    if rejecting:
        return f'<p class="bad"><strong>Rejected:</strong> {rejecting} {"rule is" if rejecting == 1 else "rules are"} broken.</p>'
    if not reviewed:
        return '<p class="warn"><strong>Waiting for a review:</strong> nobody has accepted a schema yet.</p>'
    return '<p class="good"><strong>Accepted.</strong> No rule is broken.</p>'


def _section(title: str, content: str) -> str:
    return f"<h2>{title}</h2>\n{content}" if content else ""


def _table(anomalies: Sequence[Anomaly]) -> str:
    return table(
        [
            {
                "column": Markup(f"<code>{escape(anomaly.column)}</code>"),
                "rule": anomaly.rule,
                "what": anomaly.what,
                "rows": None if anomaly.share is None else f"{anomaly.share:.2%}",
                "examples": list(anomaly.examples),
            }
            for anomaly in anomalies
        ]
    )


def _distances(compared: Compared) -> str:
    worst_first = sorted(compared.items(), key=lambda item: item[1][0].distance - item[1][0].noise, reverse=True)
    return table(
        [
            {
                "column": Markup(f"<code>{escape(name)}</code>"),
                "measure": shift.measure,
                "distance": f"{shift.distance:.3f}",
                "allowed": f"{threshold:g} + {shift.noise:.3f}",
                "": Markup('<span class="bad">too far</span>' if shift.exceeds(threshold) else '<span class="good">within</span>'),
                "what moved most": shift.where,
            }
            for name, (shift, threshold) in worst_first
        ]
    )
