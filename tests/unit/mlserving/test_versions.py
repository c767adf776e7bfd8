"""Which versions to load and to let go of is decided without TensorFlow, a disk or a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserving.server.versions import Every, Latest, Plan, Policy, Specific, plan

numbers = st.sets(st.integers(1, 8))
policies = st.one_of(
    st.builds(Latest, st.integers(1, 3)), st.just(Every()), st.builds(Specific, st.frozensets(st.integers(1, 8), min_size=1))
)


def steps(policy: Policy, on_disk: set[int], loaded: set[int], failed: set[int]) -> Plan:
    return plan(policy, on_disk=on_disk, loaded=loaded, failed=failed)


@pytest.mark.parametrize(
    ("policy", "expected"), [(Latest(), (4,)), (Latest(2), (4, 3)), (Every(), (4, 3, 1)), (Specific(frozenset({1, 9})), (1,))]
)
def test_each_policy_chooses_from_what_is_on_disk_newest_first(policy: Policy, expected: tuple[int, ...]) -> None:
    assert steps(policy, {1, 3, 4}, set(), set()) == Plan(load=expected)


def test_the_old_version_goes_only_after_the_new_one_is_loaded() -> None:
    assert steps(Latest(), {1, 2}, {1}, set()) == Plan(load=(2,))
    assert steps(Latest(), {1, 2}, {1, 2}, set()) == Plan(unload=(1,))


def test_a_version_that_does_not_load_leaves_the_old_one_in_place() -> None:
    assert steps(Latest(), {1, 2}, {1}, {2}) == Plan()


def test_at_the_start_the_version_before_a_broken_one_is_loaded() -> None:
    assert steps(Latest(), {1, 2}, set(), {2}) == Plan(load=(1,))


def test_a_model_whose_folder_is_emptied_is_unloaded() -> None:
    assert steps(Latest(), set(), {1}, set()) == Plan(unload=(1,))


def test_what_answers_stays_when_the_specific_versions_are_missing() -> None:
    assert steps(Specific(frozenset({7})), {1}, {1}, set()) == Plan()


@given(policies, numbers, numbers, numbers)
def test_a_model_with_versions_on_disk_never_goes_from_answering_to_silent(
    policy: Policy, on_disk: set[int], loaded: set[int], failed: set[int]
) -> None:
    step = steps(policy, on_disk, loaded, failed)
    if on_disk and loaded:
        assert loaded - set(step.unload) | set(step.load)
    assert not (step.load and step.unload)


@given(policies, numbers, numbers, numbers)
def test_carrying_the_plan_out_comes_to_rest(policy: Policy, on_disk: set[int], loaded: set[int], failed: set[int]) -> None:
    for _ in range(20):
        step = steps(policy, on_disk, loaded, failed)
        if step == Plan():
            return
        assert not set(step.load) & failed
        loaded = (loaded | set(step.load[:1])) - set(step.unload)
    pytest.fail("the plan never ends")
