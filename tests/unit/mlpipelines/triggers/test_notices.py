"""What people read of a training."""

from __future__ import annotations

from typing import Any

import pytest

from mlpipelines.evaluation.verdict import Check, Estimate, Opponent, Verdict
from mlpipelines.triggers.notices import Event, as_json, as_mail, as_slack, from_json, of_end, of_start
from mlpipelines.triggers.rollout_notices import of_rollout
from mlpipelines.triggers.starts import Ended
from mlserving.rollout.plan import Check as Compared
from mlserving.rollout.plan import Judgement, Phase, Plan, Rollout

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


def test_a_blessed_version_that_answers_nobody_yet_is_not_called_deployed() -> None:
    ended = Ended(outcome="blessed", facts={"version": 4})
    notice = of_end("scam", "scam-drift-1", WHY, ended, a_verdict("blessed"), onward="Its rollout is started next.")
    assert notice.title == "scam: model blessed"
    assert "Published as version 4. Blessed: recall 0.91 against 0.88. Its rollout is started next." in notice.text


def a_rollout(phase: Phase, **changes: Any) -> Rollout:
    return Rollout(
        id="scam-drift-1", model="scam", from_version=3, to_version=4, plan=Plan(), phase=phase, started=0.0, started_by="trigger", **changes
    )  # fmt: skip


def test_of_an_aborted_rollout_the_check_that_failed_comes_first() -> None:
    checks = (
        Compared(name="errors", verdict="ok", canary=0.001, stable=0.001, limit=0.01, says="0.1 % against 0.1 %"),
        Compared(name="latency", verdict="worse", canary=80.0, stable=20.0, limit=30.0, says="p99 80 ms against 20 ms"),
    )
    judgement = Judgement(time=1.0, weight=10, decision="abort", reason="latency", checks=checks)
    rollout = a_rollout(Phase.ABORTED, ended_because="latency: p99 80 ms against 20 ms", judgements=(judgement,))
    notice = of_rollout("scam-drift-1", WHY, rollout)
    assert notice is not None
    assert notice.title == "scam: rollout aborted"
    assert notice.text.startswith("Version 3 answers everything again. Version 4: latency: p99 80 ms against 20 ms.")
    table = as_mail(notice, "millrace@example.com", ["ann@example.com"]).get_content()
    assert table.index("✘  latency  80") < table.index("✔  errors")
    assert "canary  stable" in table
    assert from_json(as_json(notice)) == notice


@pytest.mark.parametrize(
    ("phase", "says"),
    [
        (Phase.CANARY, "Its steps: 1 → 10 → 50 → 100 %"),
        (Phase.AWAITING_APPROVAL, "millrace rollout approve scam"),
        (Phase.HOLDING, "millrace rollout promote, or abort, scam"),
        (Phase.PROMOTING, "Version 4 answers everything"),
        (Phase.ROLLED_BACK, "taken back and version 3 answers everything"),
    ],
)
def test_what_people_read_of_a_rollout_says_what_to_do(phase: Phase, says: str) -> None:
    notice = of_rollout("scam-drift-1", WHY, a_rollout(phase))
    assert notice is not None
    assert says in notice.text


def test_nobody_hears_of_a_version_that_is_being_loaded() -> None:
    assert of_rollout("scam-drift-1", WHY, a_rollout(Phase.STARTING)) is None
