"""What a person reads of a rollout."""

from __future__ import annotations

import pytest

from mlserving.rollout import screen, states
from mlserving.rollout.decide import decide
from mlserving.rollout.document import Desired, Wanted, begin, history, steered
from mlserving.rollout.plan import Phase, Rollout
from rollouts import NOW, observed, plan, rollout, seen, served


def document(state: Rollout) -> Desired:
    return steered(begin(served(), state, Wanted(version=2)), state)


def judged(requests: int, errors: int = 0) -> Rollout:
    state, found = rollout(), observed(seen(requests, errors))
    return states.judged(state, decide(plan(), state, found, NOW + 5), found, NOW + 5)


def test_a_step_shows_weights_what_was_seen_of_what_is_needed_each_check_and_what_comes_next(capsys: pytest.CaptureFixture[str]) -> None:
    screen.show(document(judged(60, 1)), observed(seen(60, 1)), NOW + 5)
    said = capsys.readouterr().out
    assert "canary  2        1 %     60                     1" in said
    assert "1 of 60 failed, 0 of 6,000 on stable; at least" in said
    assert "unclear" in said
    assert "Next: 10 %, after 60 of 200 requests and 5 s more; a look at 75 requests; a person is asked at" in said


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (Phase.STARTING, "being loaded"),
        (Phase.PROMOTING, "version 1 is let go at"),
        (Phase.AWAITING_APPROVAL, "millrace rollout approve demo"),
        (Phase.ABORTED, "Over at"),
    ],
)
def test_every_phase_says_what_comes_next(phase: Phase, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    state = rollout(phase=phase, promoted=NOW, ended=NOW, approval={"required": True}, step_started=None)
    screen.show(document(state), None, NOW)
    assert words in capsys.readouterr().out


def test_an_aborted_rollout_tells_why_and_the_history_too(capsys: pytest.CaptureFixture[str]) -> None:
    desired = document(judged(60, 30))
    screen.show(desired, None, NOW + 5)
    screen.show_history("demo", history(desired))
    said = capsys.readouterr().out
    assert said.count("30 of 60 failed") >= 3
    assert "1 → 2" in said


def test_a_model_without_a_rollout_says_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    screen.show(served(), None, NOW)
    screen.show_history("demo", [])
    assert capsys.readouterr().out.count("was ever started") == 2
