"""How many GPUs a pod holds."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuqueue.quantities import UNREADABLE, gpus_of, whole


def container(gpus: object = 0, name: str = "nvidia.com/gpu", **more: Any) -> dict[str, Any]:
    return {"resources": {"limits": {name: gpus, "cpu": "2"}}, **more}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"containers": [container(2), container(1)]}, 3),
        ({"containers": [{}, {"resources": {}}, {"resources": {"limits": None}}]}, 0),
        ({"initContainers": [container(4)], "containers": [container(1)]}, 4),
        ({"initContainers": [container(1, restartPolicy="Always"), container(2)], "containers": [container(1)]}, 3),
        ({"initContainers": [container(2), container(1, restartPolicy="Always")], "containers": [container(2)]}, 3),
        ({"containers": [{"resources": {"requests": {"nvidia.com/gpu": "1"}}}]}, 1),
        ({"containers": [container(3, "nvidia.com/mig-1g.10gb")]}, 3),
        ({"containers": [container(1, "amd.com/gpu")]}, 0),
        ({"containers": [{}], "resourceClaims": [{"name": "gpu"}]}, 1),
        ({"containers": [container(10**9)]}, 10**9),
        ({"containers": [container("1k")]}, 1000),
        ({"containers": [container("many")]}, UNREADABLE),
        ({"containers": [container(9 * 10**18), container("9" * 5000)]}, UNREADABLE),
    ],
)
def test_a_pod_holds_what_its_containers_hold_at_the_same_time(spec: dict[str, Any], expected: int) -> None:
    assert gpus_of(spec) == expected


def test_a_table_says_what_a_unit_counts() -> None:
    spec = {"containers": [container(3, "nvidia.com/mig-1g.10gb"), container(2)], "resourceClaims": [{"name": "gpu"}]}
    assert gpus_of(spec, {"nvidia.com/mig-1g.10gb": 0, "claim": 4}) == 2 + 4


@given(st.text(max_size=8))
def test_no_quantity_is_ever_negative_or_an_error(text: str) -> None:
    assert whole(text) >= 0


@given(st.integers(0, 10**12))
def test_whole_numbers_are_themselves(number: int) -> None:
    assert whole(number) == whole(str(number)) == number
