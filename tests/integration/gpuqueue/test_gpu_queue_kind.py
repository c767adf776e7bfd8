"""What the API server says to people who write a GpuQueue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import gpu_objects as make
from api_client import Client, Refused
from gpuqueue import labels

QUEUES = f"/apis/{labels.DOMAIN}/v1/gpuqueues?dryRun=All&fieldValidation=Strict"


def test_the_smallest_queue_gets_its_defaults(api: Client, fresh_name: Callable[[], str]) -> None:
    smallest = make.queue(fresh_name(), lanes=[{"name": "any", "quota": 1}])
    spec = api.request("POST", QUEUES, smallest)["spec"]
    assert (spec["order"], spec["enforceRunLimit"], spec["lanes"][0]["match"]) == ("strict", False, {})


def test_everything_can_be_said(api: Client, fresh_name: Callable[[], str]) -> None:
    everything = make.queue(
        fresh_name(),
        lanes=[
            make.lane(windows=[{"cron": "0 20 * * *", "for": "10h", "quota": 16, "timeZone": "Europe/London"}]),
            make.lane("h100", quota=4),
        ],
        order="easy",
        defaultRunLimit="6h30m",
        enforceRunLimit=True,
        budget={"gpuHours": 2000, "per": "month", "warnAt": [50, 80, 95], "whenSpent": "hold"},
        idle={"metric": "gr_engine_active", "below": 0.03, "for": "45m", "grace": "15m", "action": "evict"},
        pool={"name": "shared", "maxBorrow": 4},
    )
    assert api.request("POST", QUEUES, everything)["spec"] == everything["spec"]


def test_a_pool_for_others_has_no_namespaces(api: Client, fresh_name: Callable[[], str]) -> None:
    pool = make.queue(fresh_name())
    del pool["spec"]["namespaces"]
    assert api.request("POST", QUEUES, pool)["spec"]["namespaces"] == []


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a negative quota": ({"lanes": [make.lane(quota=-1)]}, r"spec\.lanes\[0\]\.quota.*should be greater than or equal to 0"),
    "two lanes of one name": (
        {"lanes": [make.lane(), {**make.lane("h100"), "name": "l4"}]},
        r'spec\.lanes\[1\]: Duplicate value: .*"name":"l4"',
    ),
    "two lanes for the same nodes": ({"lanes": [make.lane(), {**make.lane(), "name": "other"}]}, "two lanes match the same nodes"),
    "no lane": ({"lanes": []}, r"spec\.lanes.*should have at least 1 items"),
    "an unknown order": ({"order": "fifo"}, r'spec\.order: Unsupported value: "fifo": supported values: "strict", "easy"'),
    "the same namespace twice": ({"namespaces": ["fraud", "fraud"]}, r"spec\.namespaces\[1\]: Duplicate value"),
    "a namespace that cannot be": ({"namespaces": ["Fraud Team"]}, r"spec\.namespaces\[0\].*should match"),
    "a clock that does not exist": (
        {"lanes": [make.lane(windows=[{"cron": "0 20 * * *", "for": "10h", "quota": 16, "timeZone": "five o'clock"}])]},
        r"windows\[0\]\.timeZone.*must be a time zone's name",
    ),
    "a cron line of four fields": (
        {"lanes": [make.lane(windows=[{"cron": "0 20 * *", "for": "10h", "quota": 16}])]},
        r"windows\[0\]\.cron.*must be five fields with one space between them",
    ),
    "a run limit without a unit": ({"defaultRunLimit": "6"}, r"spec\.defaultRunLimit.*must be a duration above zero, such as 90m or 6h"),
    "a run limit of nothing": ({"defaultRunLimit": "0h"}, "must be a duration above zero"),
    "an empty run limit": ({"defaultRunLimit": ""}, "must be a duration above zero"),
    "a warning above the whole budget": ({"budget": {"gpuHours": 10, "warnAt": [150]}}, r"warnAt\[0\].*less than or equal to 100"),
    "a budget action that does not exist": ({"budget": {"gpuHours": 10, "whenSpent": "kill"}}, 'supported values: "warn", "hold"'),
    "a misspelt field": ({"defaultRunLimits": "6h"}, r'unknown field "spec\.defaultRunLimits"'),
}


@pytest.mark.parametrize(("spec", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_mistake_is_refused_with_its_place_and_its_remedy(
    api: Client, fresh_name: Callable[[], str], spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(Refused, match=message) as no:
        api.request("POST", QUEUES, make.queue(fresh_name(), **spec))
    assert no.value.code in {400, 422}


def test_a_queue_does_not_borrow_from_itself(api: Client, fresh_name: Callable[[], str]) -> None:
    name = fresh_name()
    with pytest.raises(Refused, match="a queue cannot borrow from itself"):
        api.request("POST", QUEUES, make.queue(name, pool={"name": name, "maxBorrow": 1}))
