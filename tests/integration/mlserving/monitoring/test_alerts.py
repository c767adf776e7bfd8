"""Every alert of the serving chart, judged by the real promtool: it fires when it must, and stays silent when it must not."""

from __future__ import annotations

from pathlib import Path

import pytest

import alert_stories
from alert_stories import Story

pytestmark = pytest.mark.prometheus

RULES = Path(__file__).resolve().parents[4] / "helm" / "model-serving" / "rules" / "model-serving.yaml"
MODEL = {"model": "cards"}
STABLE, CANARY = {**MODEL, "track": "stable"}, {**MODEL, "track": "canary"}
ROLLOUT = {**MODEL, "rollout": "r1"}
JOB = {"namespace": "fraud", "job": "cards-gateway"}
DAY = 24 * 60


def told(name: str, values: str, /, **labels: str) -> dict[str, str]:
    """One series of a gateway, which is scraped as JOB says."""
    inner = ",".join(f'{label}="{value}"' for label, value in ({**JOB, "instance": "a"} | labels).items())
    return {f"millrace_{name}{{{inner}}}": values}


def requests(values: str, /, code: str = "OK", track: str = "stable", version: str = "7", protocol: str = "grpc") -> dict[str, str]:
    return told("gateway_requests_total", values, model="cards", track=track, version=version, protocol=protocol, code=code)


def latencies(fast: str, all_of_them: str) -> dict[str, str]:
    """A second's bucket, the next one, and all."""
    who = {"model": "cards", "track": "stable", "version": "7", "protocol": "grpc"}
    buckets = {"0.5": fast, "2.0": all_of_them, "+Inf": all_of_them}
    return {k: v for le, values in buckets.items() for k, v in told("gateway_request_seconds_bucket", values, **who, le=le).items()}


def added(fast: str, all_of_them: str) -> dict[str, str]:
    buckets = {"0.01": fast, "0.05": all_of_them, "+Inf": all_of_them}
    return {k: v for le, values in buckets.items() for k, v in told("gateway_added_seconds_bucket", values, protocol="grpc", le=le).items()}


def endpoint(values: str, /, name: str = "10.0.0.5:8500", track: str = "stable", version: str = "7", instance: str = "a") -> dict[str, str]:
    return told("gateway_endpoint_up", values, model="cards", track=track, endpoint=name, version=version, instance=instance)


def weight(values: str, /, track: str = "stable", instance: str = "a") -> dict[str, str]:
    return told("gateway_track_weight", values, model="cards", track=track, instance=instance)


def phase(name: str, values: str, /, instance: str = "a") -> dict[str, str]:
    return told("rollout_phase", values, **ROLLOUT, phase=name, instance=instance)


STORIES = [
    Story(
        told="no server is up",
        alert="ServingErrors",
        series=requests("0+100x60", code="UNAVAILABLE", version=""),
        value="100%",
        fires={20: {**STABLE, "version": ""}},
    ),
    Story(
        told="two of a hundred fail",
        alert="ServingErrors",
        series={**requests("0+98x60"), **requests("0+2x60", code="INTERNAL")},
        value="2%",
        fires={20: {**STABLE, "version": "7"}},
        silent=(3,),
    ),
    Story(
        told="the canary's REST callers get 500",
        alert="ServingErrors",
        series={**requests("0+100x60"), **requests("0+1x60", code="500", track="canary", version="8", protocol="rest")},
        value="100%",
        fires={20: {**CANARY, "version": "8"}},
    ),
    Story(
        told="callers ask nonsense, and give up",
        alert="ServingErrors",
        series={**requests("0+90x60"), **requests("0+9x60", code="INVALID_ARGUMENT"), **requests("0+9x60", code="CANCELLED")},
        silent=(20, 50),
    ),
    Story(
        told="the shadow fails",
        alert="ServingErrors",
        series={**requests("0+90x60"), **requests("0+90x60", code="INTERNAL", track="shadow", version="9")},
        silent=(20, 50),
    ),
    Story(
        told="a burst of errors, then none",
        alert="ServingErrors",
        series={**requests("0+90x60"), **requests("0 0 50x60", code="UNAVAILABLE")},
        silent=(5, 15, 40),
    ),
    Story(
        told="one in fifty takes long",
        alert="ServingSlow",
        series=latencies("0+98x60", "0+100x60"),
        value="1.25s",
        fires={30: {**STABLE, "version": "7"}},
        silent=(8,),
    ),
    Story(told="one in a thousand takes long", alert="ServingSlow", series=latencies("0+999x60", "0+1000x60"), silent=(30, 55)),
    Story(
        told="more come than are let in",
        alert="ServingRequestsRefused",
        series={**requests("0+90x60"), **requests("0+10x60", code="RESOURCE_EXHAUSTED", track="", version="")},
        value="10%",
        fires={20: MODEL},
        silent=(3,),
    ),
    Story(
        told="somebody asks for a model that is not there",
        alert="ServingRequestsRefused",
        series={**requests("0+90x60"), **requests("0+10x60", code="404", track="", version="", protocol="rest")},
        silent=(20, 50),
    ),
    Story(
        told="callers stay away",
        alert="ServingNoPredictions",
        series=requests("0+10x60 600x120"),
        value="600",
        fires={120: MODEL},
        silent=(59, 95),
    ),
    Story(told="a few requests an hour", alert="ServingNoPredictions", series=requests("0+1x20 20x200"), silent=(30, 120, 200)),
    Story(told="a steady stream", alert="ServingNoPredictions", series=requests("0+1x300"), silent=(150, 299)),
    Story(
        told="a server that drops connections",
        alert="ServingRetries",
        series={**requests("0+100x60"), **told("gateway_retries_total", "0+10x60", **STABLE)},
        value="10%",
        fires={30: STABLE},
        silent=(8,),
    ),
    Story(
        told="a rolling update costs a few retries",
        alert="ServingRetries",
        series={**requests("0+100x60"), **told("gateway_retries_total", "0x10 40x60", **STABLE)},
        silent=(12, 22, 40),
    ),
    Story(
        told="starved of processor time",
        alert="ServingGatewaySlow",
        series=added("0+90x60", "0+100x60"),
        value="46ms",
        fires={35: {**JOB, "protocol": "grpc"}},
        silent=(10,),
    ),
    Story(told="as it should be", alert="ServingGatewaySlow", series=added("0+1000x60", "0+1001x60"), silent=(35, 55)),
    Story(
        told="its servers die",
        alert="ServingStableWithoutEndpoints",
        series={**weight("100x60"), **endpoint("1x10 0x60")},
        fires={15: STABLE},
        silent=(10, 11),
    ),
    Story(
        told="there never was one, and the weight is the canary's",
        alert="ServingStableWithoutEndpoints",
        series={**weight("0x60"), **weight("100x60", track="canary"), **endpoint("1x60", track="canary")},
        fires={15: STABLE},
    ),
    Story(
        told="one of two servers is down, and one of two gateways sees none",
        alert="ServingStableWithoutEndpoints",
        series={**weight("100x60"), **weight("100x60", instance="b"), **endpoint("1x60"), **endpoint("0x60", instance="b")},
        silent=(15, 50),
    ),
    Story(
        told="a canary that does not start",
        alert="ServingTrackWithoutEndpoints",
        series={**weight("90x60"), **weight("10x60", track="canary"), **endpoint("1x60")},
        value="10",
        fires={10: CANARY},
        silent=(3,),
    ),
    Story(
        told="a canary that waits at weight 0",
        alert="ServingTrackWithoutEndpoints",
        series={**weight("100x60"), **weight("0x60", track="canary"), **endpoint("1x60")},
        silent=(10, 50),
    ),
    Story(
        told="one of two servers hangs",
        alert="ServingEndpointDown",
        series={**endpoint("1x60"), **endpoint("1x10 0x60", name="10.0.0.6:8500")},
        fires={20: {**STABLE, "endpoint": "10.0.0.6:8500"}},
        silent=(12,),
    ),
    Story(
        told="a server goes with its pod",
        alert="ServingEndpointDown",
        series={**endpoint("1x60"), **endpoint("1x10 0 0 _x60", name="10.0.0.6:8500")},
        silent=(12, 20, 40),
    ),
    Story(
        told="an update that is stuck",
        alert="ServingTwoVersions",
        series={**endpoint("1x90"), **endpoint("_x5 1x90", name="10.0.0.6:8500", version="8")},
        value="2",
        fires={45: STABLE},
        silent=(20,),
    ),
    Story(
        told="an update that takes ten minutes",
        alert="ServingTwoVersions",
        series={**endpoint("1x15 _x90"), **endpoint("_x5 1x90", name="10.0.0.6:8500", version="8")},
        silent=(10, 40, 80),
    ),
    Story(
        told="a shadow that is too slow",
        alert="ServingShadowLost",
        series={
            **told("gateway_shadow_total", "0+80x60", model="cards", outcome="answered"),
            **told("gateway_shadow_total", "0+20x60", model="cards", outcome="dropped"),
        },
        value="20%",
        fires={40: MODEL},
        silent=(10,),
    ),
    Story(
        told="a few are late",
        alert="ServingShadowLost",
        series={
            **told("gateway_shadow_total", "0+95x60", model="cards", outcome="answered"),
            **told("gateway_shadow_total", "0+5x60", model="cards", outcome="late"),
        },
        silent=(40, 55),
    ),
    Story(
        told="all are gone",
        alert="ServingGatewaysGone",
        series={**weight("100x20 _x90"), **weight("100x20 _x90", instance="b")},
        fires={35: MODEL},
        silent=(20, 85),
    ),
    Story(
        told="one of two is gone",
        alert="ServingGatewaysGone",
        series={**weight("100x20 _x90"), **weight("100x90", instance="b")},
        silent=(35, 60),
    ),
    Story(
        told="weights that do not add up, in one of two, until somebody mends them two hours later",
        alert="ServingConfigErrors",
        series={**told("gateway_config_valid", "1x10 0x120 1x60"), **told("gateway_config_valid", "1x190", instance="b")},
        fires={20: JOB, 70: JOB, 130: JOB},
        silent=(9, 14, 132, 180),
    ),
    Story(
        told="errors of long ago, and an API server that was away for two minutes",
        alert="ServingConfigErrors",
        series={**told("gateway_config_errors_total", "3x60"), **told("gateway_config_valid", "1x20 0x1 1x60")},
        silent=(22, 30, 50),
    ),
    Story(
        told="one gateway hears nothing",
        alert="ServingConfigsDiffer",
        series={
            **told("gateway_config_hash_info", "1x60", hash="new"),
            **told("gateway_config_hash_info", "1x60", hash="old", instance="b"),
        },
        value="2",
        fires={10: JOB},
        silent=(3,),
    ),
    Story(
        told="a change that reaches one before the other, and another release",
        alert="ServingConfigsDiffer",
        series={
            **told("gateway_config_hash_info", "1x10 _x60", hash="old"),
            **told("gateway_config_hash_info", "_x10 1x60", hash="new"),
            **told("gateway_config_hash_info", "1x12 _x60", hash="old", instance="b"),
            **told("gateway_config_hash_info", "_x12 1x60", hash="new", instance="b"),
            **told("gateway_config_hash_info", "1x60", hash="other", job="scam-gateway"),
        },
        silent=(11, 20, 50),
    ),
    Story(
        told="worse than stable",
        alert="RolloutAborted",
        series={**phase("canary", "1x10 0x200"), **phase("aborted", "0x10 1x200"), **phase("aborted", "0x10 1x200", instance="b")},
        fires={15: ROLLOUT, 65: ROLLOUT},
        silent=(9, 75, 150),
    ),
    Story(
        told="an old one, and gateways that are replaced",
        alert="RolloutAborted",
        series={**phase("aborted", "1x100 _x100"), **phase("aborted", "_x99 1x100", instance="b"), **phase("done", "0x200")},
        silent=(70, 100, 101, 105, 150, 190),
    ),
    Story(
        told="nobody has looked yet",
        alert="RolloutWaits",
        series={**phase("canary", "1x10 0x200"), **phase("awaiting_approval", "0x10 1x200")},
        fires={80: {**ROLLOUT, "phase": "awaiting_approval"}},
        silent=(15, 65),
    ),
    Story(
        told="somebody agrees within the hour",
        alert="RolloutWaits",
        series={**phase("awaiting_approval", "0x10 1x50 0x200"), **phase("promoting", "0x60 1x200")},
        silent=(15, 60, 65, 120),
    ),
    Story(
        told="the recorder cannot keep up",
        alert="ServingLogDropped",
        series=told("gateway_spool_dropped_total", "0x5 0+10x60", reason="full"),
        value="150",
        fires={40: {**JOB, "reason": "full"}},
        silent=(5, 12),
    ),
    Story(
        told="what the recorder cannot read",
        alert="ServingLogDropped",
        series=told("predictions_dropped_total", "0+2x60", model="cards", reason="unreadable"),
        value="30",
        fires={40: {**JOB, "reason": "unreadable"}},
    ),
    Story(
        told="nothing is lost", alert="ServingLogDropped", series=told("gateway_spool_dropped_total", "0x60", reason="full"), silent=(50,)
    ),
    Story(
        told="it hangs",
        alert="ServingRecorderDead",
        series={
            **told("gateway_spooled_total", "0+20x90", **STABLE),
            **told("predictions_logged_total", "0+20x20 400x90", **STABLE, version="7"),
        },
        value="300",
        fires={55: JOB},
        silent=(19, 30),
    ),
    Story(
        told="it never came up",
        alert="ServingRecorderDead",
        series=told("gateway_spooled_total", "0+20x90", **STABLE),
        value="300",
        fires={40: JOB},
    ),
    Story(
        told="it works in bursts",
        alert="ServingRecorderDead",
        series={
            **told("gateway_spooled_total", "0+20x90", **STABLE),
            **told("predictions_logged_total", "0x9 200x9 400x9 600x9 800x9 1000x9 1200x9", **STABLE, version="7"),
        },
        silent=(30, 50, 60),
    ),
    Story(told="nobody asked for a log", alert="ServingRecorderDead", series=requests("0+90x60"), silent=(50,)),
    Story(
        told="it dies every minute",
        alert="ServingRecorderRestarts",
        series=told("gateway_recorder_restarts_total", "0+1x60"),
        value="30",
        fires={40: JOB},
        silent=(3,),
    ),
    Story(
        told="it died once", alert="ServingRecorderRestarts", series=told("gateway_recorder_restarts_total", "0x5 1x60"), silent=(20, 50)
    ),
    Story(
        told="whoever sends them has stopped",
        alert="ServingLabelsOverdue",
        series=told("labels_total", f"0+30x{DAY // 30} {DAY}x{3 * DAY // 30}", model="cards", source="api"),
        step=30,
        value="1.44k",
        fires={3 * DAY + 120: MODEL},
        silent=(DAY, 2 * DAY, 3 * DAY - 60),
    ),
    Story(
        told="a batch each night",
        alert="ServingLabelsOverdue",
        series=told("labels_total", "0x1 100x48 200x48 300x48 400x48", model="cards", source="import"),
        step=30,
        silent=(DAY, 2 * DAY, 4 * DAY),
    ),
]


@pytest.mark.parametrize("story", STORIES, ids=str)
def test_the_alert_fires_when_it_must_and_only_then_and_says_what_to_do(story: Story, tmp_path: Path) -> None:
    alert_stories.comes_true(RULES, story, tmp_path)


def test_every_alert_has_a_story_in_which_it_fires_and_one_in_which_it_never_does() -> None:
    alert_stories.are_all_told(RULES, STORIES)


def test_the_rules_are_as_prometheus_wants_them() -> None:
    alert_stories.are_well_formed(RULES)
