"""Every alert of the chart, judged by the real promtool: it fires when it must, and stays silent when it must not."""

from __future__ import annotations

from pathlib import Path

import pytest

import alert_stories
from alert_stories import Story

pytestmark = pytest.mark.prometheus

ROOT = Path(__file__).resolve().parents[4]
RULES = ROOT / "helm" / "gpu-queue" / "rules" / "gpu-queue.yaml"
LANE, QUEUE, NOBODY = {"queue": "fraud", "lane": "l4"}, {"queue": "fraud"}, dict[str, str]()
MONTH = 30 * 86400


def lane(name: str, values: str, instance: str = "a") -> dict[str, str]:
    return {f'gpuqueue_{name}{{queue="fraud",lane="l4",instance="{instance}"}}': values}


def queue(name: str, values: str, instance: str = "a") -> dict[str, str]:
    return {f'gpuqueue_{name}{{queue="fraud",instance="{instance}"}}': values}


def replica(name: str, values: str, instance: str = "a") -> dict[str, str]:
    return {f'gpuqueue_{name}{{instance="{instance}"}}': values}


def budget(spent: str, end: str = f"{MONTH}x3000") -> dict[str, str]:
    return {**queue("budget_spent_ratio", spent), **queue("budget_end_timestamp_seconds", end)}


STORIES = [
    Story(
        told="full and a line behind it, though another replica led first",
        alert="GpuQueueQuotaFull",
        series={
            **lane("quota_gpus", "8x800"),
            **lane("granted_gpus", "8x100 _x700"),
            **lane("granted_gpus", "_x100 8x700", instance="b"),
            **lane("waiting_gpus", "3x800"),
        },
        value="100%",
        fires={365: LANE},
        silent=(355,),
    ),
    Story(
        told="full and nobody waits",
        alert="GpuQueueQuotaFull",
        series={**lane("quota_gpus", "8x800"), **lane("granted_gpus", "8x800"), **lane("waiting_gpus", "0x800")},
        silent=(700,),
    ),
    Story(
        told="a lane that its calendar closed while pods run is not full",
        alert="GpuQueueQuotaFull",
        series={**lane("quota_gpus", "0x800"), **lane("granted_gpus", "2x800"), **lane("waiting_gpus", "3x800")},
        silent=(700,),
    ),
    Story(
        told="half full",
        alert="GpuQueueQuotaFull",
        series={**lane("quota_gpus", "8x800"), **lane("granted_gpus", "7x800"), **lane("waiting_gpus", "3x800")},
        silent=(700,),
    ),
    Story(
        told="the same pod waits for hours",
        alert="GpuQueueHeadWaitsLong",
        series=lane("head_wait_seconds", "0+60x300"),
        value="4h 18m 0s",
        fires={258: LANE},
        silent=(241, 250),
    ),
    Story(
        told="the line moves: another head every three hours",
        alert="GpuQueueHeadWaitsLong",
        series=lane("head_wait_seconds", "0+60x180 0+60x180"),
        silent=(180, 260, 360),
    ),
    Story(told="idle", alert="GpuQueueIdleGpus", series=lane("idle_gpus", "0x10 2x60"), value="2", fires={45: LANE}, silent=(10, 35)),
    Story(told="idle, then busy again", alert="GpuQueueIdleGpus", series=lane("idle_gpus", "2x25 0x60"), silent=(24, 40)),
    Story(
        told="the queue is gone", alert="GpuQueueIdleGpus", series=lane("idle_gpus", "2x40 _x60"), value="2", fires={38: LANE}, silent=(50,)
    ),
    Story(
        told="most use is unknown",
        alert="GpuQueueUseUnknown",
        series={**lane("unknown_use_gpus", "5x200"), **lane("granted_gpus", "8x200")},
        value="5",
        fires={130: LANE},
        silent=(110,),
    ),
    Story(
        told="pods that have just started are unknown, and a minority",
        alert="GpuQueueUseUnknown",
        series={**lane("unknown_use_gpus", "4x200"), **lane("granted_gpus", "8x200")},
        silent=(190,),
    ),
    Story(
        told="foreign", alert="GpuQueueForeignGpus", series=lane("foreign_gpus", "0x5 1x60"), value="1", fires={40: LANE}, silent=(5, 30)
    ),
    Story(told="foreign for a moment", alert="GpuQueueForeignGpus", series=lane("foreign_gpus", "1x20 0x60"), silent=(19, 60)),
    Story(
        told="promises are broken",
        alert="GpuQueueEtaPoor",
        series={**queue("eta_p90_coverage_ratio", "0.6x500"), **queue("eta_judged_starts", "60x500")},
        value="60%",
        fires={370: QUEUE},
        silent=(350,),
    ),
    Story(
        told="too few starts to say",
        alert="GpuQueueEtaPoor",
        series={**queue("eta_p90_coverage_ratio", "0.2x500"), **queue("eta_judged_starts", "49x500")},
        silent=(480,),
    ),
    Story(
        told="promises are kept",
        alert="GpuQueueEtaPoor",
        series={**queue("eta_p90_coverage_ratio", "0.88x500"), **queue("eta_judged_starts", "60x500")},
        silent=(480,),
    ),
    Story(
        told="three times as fast as planned",
        alert="GpuQueueBudgetBurnsFast",
        series=budget(f"0+{3 * 60 / MONTH:.9f}x300"),
        value="9d 22h 20m 5s",
        fires={100: QUEUE},
        silent=(10, 45),
    ),
    Story(told="as planned", alert="GpuQueueBudgetBurnsFast", series=budget(f"0+{60 / MONTH:.9f}x300"), silent=(60, 290)),
    Story(  # at 50 % an hour before the end, the rest cannot be spent in half of it
        told="fast, at the end of the period",
        alert="GpuQueueBudgetBurnsFast",
        series=budget("0.5+0.001x100", end="7200x120"),
        silent=(60, 90),
    ),
    Story(
        told="a new period begins at nothing",
        alert="GpuQueueBudgetBurnsFast",
        series=budget(f"0.99x100 0+{60 / MONTH:.9f}x300", end=f"6000x100 {MONTH + 6000}x300"),
        silent=(90, 101, 130, 160, 290),
    ),
    Story(
        told="spent already: the other alert's",
        alert="GpuQueueBudgetBurnsFast",
        series=budget("0.99+0.001x300"),
        silent=(60, 290),
    ),
    Story(
        told="half as fast again as planned",
        alert="GpuQueueBudgetBurnsSlowly",
        series=budget(f"0+{1.5 * 60 / MONTH:.9f}x1600"),
        value="18d 23h 0m 11s",
        fires={1500: QUEUE},
        silent=(300, 1200),
    ),
    Story(told="as planned", alert="GpuQueueBudgetBurnsSlowly", series=budget(f"0+{60 / MONTH:.9f}x1500"), silent=(1000, 1400)),
    Story(told="spent already", alert="GpuQueueBudgetBurnsSlowly", series=budget("0.99+0.0001x1600"), silent=(1000, 1500)),
    Story(told="nothing is spent", alert="GpuQueueBudgetBurnsSlowly", series=budget("0.4x1500"), silent=(1400,)),
    Story(
        told="spent",
        alert="GpuQueueBudgetSpent",
        series=queue("budget_spent_ratio", "0.95+0.01x60"),
        value="107%",
        fires={12: QUEUE},
        silent=(4, 8),
    ),
    Story(told="nearly spent", alert="GpuQueueBudgetSpent", series=queue("budget_spent_ratio", "0.999x60"), silent=(50,)),
    Story(told="nobody there", alert="GpuQueueControllerDown", series=replica("leader", "1x5 _x60"), fires={30: NOBODY}, silent=(4, 10)),
    Story(
        told="one replica is restarted, the other is there",
        alert="GpuQueueControllerDown",
        series={**replica("leader", "1x5 _x60"), **replica("leader", "0x60", instance="b")},
        silent=(30, 55),
    ),
    Story(
        told="two replicas and none leads",
        alert="GpuQueueNoLeader",
        series={**replica("leader", "0x30"), **replica("leader", "0x30", instance="b")},
        fires={10: NOBODY},
        silent=(3,),
    ),
    Story(
        told="leadership changes hands",
        alert="GpuQueueNoLeader",
        series={**replica("leader", "1x5 0x30"), **replica("leader", "0x7 1x30", instance="b")},
        silent=(7, 12, 30),
    ),
    Story(
        told="the leader's loop hangs",
        alert="GpuQueueStalled",
        series={**replica("leader", "1x60"), **replica("round_seconds_count", "0+2x10 20x50")},
        fires={35: NOBODY},
        silent=(10, 18, 23),
    ),
    Story(told="the leader never had a round", alert="GpuQueueStalled", series=replica("leader", "1x60"), fires={20: NOBODY}, silent=(3,)),
    Story(
        told="two rounds a minute",
        alert="GpuQueueStalled",
        series={**replica("leader", "1x60"), **replica("round_seconds_count", "0+2x60")},
        silent=(20, 55),
    ),
    Story(
        told="nobody leads: the other alert's",
        alert="GpuQueueStalled",
        series={**replica("leader", "0x60"), **replica("round_seconds_count", "7x60")},
        silent=(40,),
    ),
    Story(
        told="the leader's view grows old",
        alert="GpuQueueViewOld",
        series={**replica("leader", "1x60"), **replica("view_age_seconds", "0+60x60")},
        value="18m 0s",
        fires={18: NOBODY},
        silent=(9, 13),
    ),
    Story(
        told="the other replica's view is old",
        alert="GpuQueueViewOld",
        series={
            **replica("leader", "1x60"),
            **replica("view_age_seconds", "5x60"),
            **replica("leader", "0x60", instance="b"),
            **replica("view_age_seconds", "0+60x60", instance="b"),
        },
        silent=(30, 55),
    ),
    Story(
        told="granted and shut",
        alert="GpuQueueGatesStayShut",
        series=queue("unopened_grants", "0x5 1x30"),
        value="1",
        fires={20: QUEUE},
        silent=(4, 12),
    ),
    Story(told="opened in the end", alert="GpuQueueGatesStayShut", series=queue("unopened_grants", "1x8 0x30"), silent=(7, 15)),
    Story(
        told="refused again and again",
        alert="GpuQueueGateRefusals",
        series=queue("gate_refusals_total", "0x5 1x4 2x4 3x4 4x4 5x4 6x4 7x4"),
        fires={30: QUEUE},
        silent=(4, 15),
    ),
    Story(told="refused once", alert="GpuQueueGateRefusals", series=queue("gate_refusals_total", "0x5 1x60"), silent=(15, 25, 50)),
    Story(told="refused long ago", alert="GpuQueueGateRefusals", series=queue("gate_refusals_total", "77x60"), silent=(50,)),
    Story(
        told="somebody else writes every minute",
        alert="GpuQueueLedgerConflicts",
        series=queue("ledger_conflicts_total", "0+1x90"),
        value="30",
        fires={60: QUEUE},
        silent=(20, 32),
    ),
    Story(
        told="a few when leadership changes",
        alert="GpuQueueLedgerConflicts",
        series=queue("ledger_conflicts_total", "0+1x15 15x90"),
        silent=(15, 40, 80),
    ),
    Story(
        told="two queues name one namespace",
        alert="GpuQueueOverlappingNamespaces",
        series=replica("overlapping_namespaces", "0x5 1x30"),
        value="1",
        fires={12: NOBODY},
        silent=(5, 8),
    ),
    Story(told="none", alert="GpuQueueOverlappingNamespaces", series=replica("overlapping_namespaces", "0x30"), silent=(25,)),
    Story(
        told="pods of no queue",
        alert="GpuQueueOrphanPods",
        series=replica("orphan_pods", "0x5 3x30"),
        value="3",
        fires={25: NOBODY},
        silent=(5, 18),
    ),
    Story(told="a queue is made for them", alert="GpuQueueOrphanPods", series=replica("orphan_pods", "3x12 0x30"), silent=(11, 30)),
    Story(
        told="a loop fails every minute",
        alert="GpuQueueErrors",
        series={'gpuqueue_errors_total{where="usage",instance="a"}': "0+1x60"},
        value="15",
        fires={30: {"where": "usage"}},
        silent=(5, 18),
    ),
    Story(
        told="a hiccup",
        alert="GpuQueueErrors",
        series={'gpuqueue_errors_total{where="usage",instance="a"}': "0+1x4 4x60"},
        silent=(4, 18, 50),
    ),
]


@pytest.mark.parametrize("story", STORIES, ids=str)
def test_the_alert_fires_when_it_must_and_only_then_and_says_what_to_do(story: Story, tmp_path: Path) -> None:
    alert_stories.comes_true(RULES, story, tmp_path)


def test_every_alert_has_a_story_in_which_it_fires_and_one_in_which_it_never_does() -> None:
    alert_stories.are_all_told(RULES, STORIES)


def test_the_rules_are_as_prometheus_wants_them() -> None:
    alert_stories.are_well_formed(RULES)
