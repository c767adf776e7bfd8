"""What people read of a training."""

from __future__ import annotations

from typing import Any

import pytest

from mlpipelines.evaluation.verdict import Check, Estimate, Opponent, Verdict
from mlpipelines.triggers.notices import Event, as_json, as_mail, as_slack, from_json, of_end, of_start
from mlpipelines.triggers.starts import Ended

WHY = "drift: amount <drifted> & more"


def a_verdict(outcome: Any, *checks: Check) -> Verdict:
    opponent = Opponent(kind="champion", name="champion version 3", version=3)
    return Verdict(
        outcome=outcome, title=f"{outcome.capitalize()}: recall 0.91 against 0.88", model="scam", task="classification", metric="recall",
        opponent=opponent, checks=checks, scores=(),
    )  # fmt: skip


def a_check(number: int, *, passed: bool) -> Check:
    return Check(
        check="slice", metric="recall", slice=f"team={number}", rule="not worse by 0.02", passed=passed,
        challenger=Estimate(value=0.9, low=0.88, high=0.92), opponent=0.85,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ended", "judged", "event", "says"),
    [
        (Ended(outcome="blessed", facts={"version": 4}), True, Event.DEPLOYED, "version 4"),
        (Ended(outcome="rejected"), True, Event.REJECTED, "The champion stays"),
        (Ended(outcome="rejected", trouble="amount: 3 % are null"), False, Event.DATA_REJECTED, "3 % are null"),
        (Ended(outcome="killed"), False, Event.ABORTED, "killed"),
        (Ended(outcome="failed", trouble="out of memory"), False, Event.FAILED, "out of memory"),
        (Ended(outcome="refused", trouble="no digest"), False, Event.FAILED, "no digest"),
        (Ended(outcome="succeeded"), False, Event.ENDED, "succeeded"),
    ],
    ids=lambda value: value.outcome if isinstance(value, Ended) else "",
)
def test_each_end_is_told_as_what_it_is_and_with_why_it_began(ended: Ended, judged: bool, event: Event, says: str) -> None:
    verdict = a_verdict("blessed" if ended.outcome == "blessed" else "rejected") if judged else None
    notice = of_end("scam", "scam-drift-1", WHY, ended, verdict)
    assert notice.title == f"scam: {event}"
    assert says in notice.text
    assert f"Retrained because {WHY}" in notice.text


def test_slack_gets_blocks_that_it_takes_whatever_is_in_them() -> None:
    checks = [a_check(n, passed=n != 37) for n in range(40)]
    body = as_slack(of_end("scam", "run<1>", WHY * 200, Ended(outcome="rejected"), a_verdict("rejected", *checks)))
    texts = [block["text"]["text"] for block in body["blocks"] if "text" in block]
    assert [block["type"] for block in body["blocks"]] == ["header", "section", "section", "context"]
    assert all(0 < len(text) <= 3000 for text in texts)
    assert len(texts[0]) <= 150
    assert "✘" in texts[2].splitlines()[1], "what failed comes first"
    assert "team=37" in texts[2].splitlines()[1]
    assert "<drifted>" not in str(body)


def test_a_link_to_a_page_is_a_link_and_a_folder_is_text() -> None:
    page = as_slack(of_start("scam", "r", WHY, "https://kubeflow.example/#/runs/details/1"))
    folder = as_slack(of_start("scam", "r", WHY, "/srv/millrace/runs/r"))
    assert "<https://kubeflow.example/#/runs/details/1|look>" in str(page)
    assert "· /srv/millrace/runs/r" in str(folder)


def test_a_mail_that_comes_twice_is_seen_to_be_one() -> None:
    notice = of_end("scam", "scam-drift-1", WHY, Ended(outcome="rejected"), a_verdict("rejected", a_check(1, passed=False)))
    mails = [as_mail(notice, "millrace@example.com", ["ann@example.com", "bob@example.com"]) for _ in range(2)]
    assert mails[0]["Message-ID"] == mails[1]["Message-ID"] == "<scam-drift-1.model-rejected@example.com>"
    assert mails[0]["To"] == "ann@example.com, bob@example.com"
    assert "slice team=1" in mails[0].get_content()


def test_a_notice_travels_as_json() -> None:
    notice = of_start("scam", "r", WHY, "")
    assert from_json(as_json(notice)) == notice
