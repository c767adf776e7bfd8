"""Every alert about the trigger and its trainings, judged by the real promtool: it fires when it must, and stays silent when it must not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import alert_stories
from alert_stories import Story, alerts

pytestmark = pytest.mark.prometheus

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "helm" / "retraining" / "rules" / "retraining.yaml"
SCAM = {"model": "scam"}
RUN = 'millrace_trigger_last_run_failed{model="scam",instance="a"}'
TRAINED = 'millrace_trigger_last_training_timestamp_seconds{model="scam",instance="a"}'
LIMIT = 'millrace_trigger_stale_after_seconds{model="scam",instance="a"}'
WANTED = 'millrace_trigger_oldest_wanted_timestamp_seconds{instance="a"}'
LOOKING, TELLING = (f'millrace_trigger_turn_timestamp_seconds{{part="{part}",instance="a"}}' for part in ("looking", "telling"))
LOOK = 'millrace_trigger_look_timestamp_seconds{model="scam",instance="a"}'
DUE = 'millrace_trigger_rollout_due_timestamp_seconds{model="scam",instance="a"}'
NOTICE = 'millrace_trigger_oldest_notice_timestamp_seconds{instance="a"}'
MINUTELY = "0+60x200"
"""A time that moves with the clock."""

STORIES = [
    Story(told="a run failed, and the next one did not", alert="TrainingFailed", series={RUN: "0x4 1x9 0x20"}, fires={6: SCAM}, silent=(3, 16)),
    Story(told="all runs end well", alert="TrainingFailed", series={RUN: "0x30"}, silent=(5, 25)),
    Story(
        told="two hours without a training, where one is allowed", alert="ModelStale", series={TRAINED: "0x200", LIMIT: "3600x200"},
        fires={125: SCAM}, silent=(59, 115), value="2h 5m 0s",
    ),
    Story(told="no limit is set", alert="ModelStale", series={TRAINED: "0x2000"}, silent=(1900,)),
    Story(told="trained every half an hour", alert="ModelStale", series={TRAINED: "0x30 1800x30 3600x30 5400x30", LIMIT: "3600x200"}, silent=(59, 119)),
    Story(told="wanted since minute 10", alert="TrainingNotStarted", series={WANTED: "0x9 600x100"}, fires={80: {}}, silent=(69, 74), value="1h 10m 0s"),
    Story(told="each is started soon", alert="TrainingNotStarted", series={WANTED: "0x30 1800x9 0x100"}, silent=(35, 120)),
    Story(told="it goes away", alert="TriggerDown", series={LOOKING: "0+60x20 stale"}, fires={35: {}}, silent=(10, 28)),
    Story(told="it is there", alert="TriggerDown", series={LOOKING: MINUTELY}, silent=(10, 100)),
    Story(
        told="one part of two hangs from minute 10 on", alert="TriggerStuck", series={LOOKING: MINUTELY, TELLING: "0+60x10 600x100"},
        fires={31: {"part": "telling"}}, silent=(24,), value="21m 0s",
    ),
    Story(told="both come round", alert="TriggerStuck", series={LOOKING: MINUTELY, TELLING: MINUTELY}, silent=(10, 100)),
    Story(told="a model is no longer seen", alert="TriggerBlind", series={LOOK: "0+60x10 600x100"}, fires={27: SCAM}, silent=(19, 24), value="17m 0s"),
    Story(told="it is seen", alert="TriggerBlind", series={LOOK: MINUTELY}, silent=(10, 100)),
    Story(
        told="nobody has judged the canary since minute 10", alert="RolloutNotDriven", series={DUE: "0+60x10 600x100"},
        fires={32: SCAM}, silent=(24, 29), value="22m 0s",
    ),
    Story(told="it is judged each minute", alert="RolloutNotDriven", series={DUE: MINUTELY}, silent=(10, 100)),
    Story(told="its rollout is over", alert="RolloutNotDriven", series={DUE: "0+60x10 stale"}, silent=(20, 60)),
    Story(told="Slack refuses from minute 10 on", alert="NoticesNotSent", series={NOTICE: "0x9 600x100"}, fires={50: {}}, silent=(39, 44), value="40m 0s"),
    Story(told="notices are sent at once", alert="NoticesNotSent", series={NOTICE: "0x100"}, silent=(10, 90)),
]  # fmt: skip


@pytest.mark.parametrize("story", STORIES, ids=str)
def test_the_alert_fires_when_it_must_and_only_then_and_says_what_to_do(story: Story, tmp_path: Path) -> None:
    alert_stories.comes_true(RULES, story, tmp_path)


def test_every_alert_has_a_story_in_which_it_fires_and_one_in_which_it_never_does_and_a_runbook() -> None:
    alert_stories.are_all_told(RULES, STORIES)
    assert all((ROOT / rule["annotations"]["runbook_url"]).is_file() for rule in alerts(RULES).values())


def test_the_rules_are_as_prometheus_wants_them() -> None:
    alert_stories.are_well_formed(RULES)


def test_every_metric_of_the_rules_is_one_that_the_trigger_tells() -> None:
    from prometheus_client import generate_latest

    from mlpipelines.triggers.metrics import Metrics

    told = set(re.findall(r"# TYPE (\S+)", generate_latest(Metrics().registry).decode()))
    assert set(re.findall(r"millrace_trigger_\w+", RULES.read_text())) <= told
