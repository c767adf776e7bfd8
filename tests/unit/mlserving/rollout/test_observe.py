"""Counts of gateways, from the gateway's own text, through real HTTP servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway_pages import Page, serving
from mlserving.errors import Unavailable
from mlserving.rollout import states
from mlserving.rollout.observation import Observation
from mlserving.rollout.observe import Gateways
from rollouts import NOW, rollout


@pytest.fixture
def pages() -> Iterator[tuple[Page, Page, Gateways]]:
    first, second = Page(), Page()
    with serving(first) as one, serving(second) as two:
        yield first, second, Gateways(lambda: [one, two])


def observe(source: Gateways, baseline: dict[str, object]) -> Observation:
    return source.observe(states.counted(rollout(), baseline, NOW), NOW + 60)


def test_several_gateways_are_one_and_only_what_came_since_the_mark_counts(pages: tuple[Page, Page, Gateways]) -> None:
    first, second, source = pages
    first.answer(40)
    first.answer(900, track="stable", version=1)
    mark = source.mark(rollout())
    first.answer(7)
    second.answer(3)
    second.answer(2, code="INTERNAL")
    second.answer(50, track="stable", version=1)
    found = observe(source, mark)
    assert (found.canary.requests, found.canary.errors, found.stable.requests) == (12, 2, 50)
    assert found.canary.classes == {"travel": 12}
    assert found.canary.latency.total == 12
    assert 0.01 < found.canary.latency.quantile(0.5) <= 0.1


def test_a_gateway_that_begins_anew_counts_from_zero(pages: tuple[Page, Page, Gateways]) -> None:
    first, second, source = pages
    first.answer(40)
    second.answer(40)
    mark = source.mark(rollout())
    first.begin()
    first.answer(5, code="UNAVAILABLE")
    second.answer(1)
    found = observe(source, mark)
    assert (found.canary.requests, found.canary.errors) == (6, 5)
    first.answer(50)
    assert observe(source, mark).canary.requests == 56, "also once it has counted past what it had before"


def test_a_recorder_that_begins_anew_takes_nothing_from_what_the_gateway_counts(pages: tuple[Page, Page, Gateways]) -> None:
    first, _, source = pages
    first.answer(40)
    mark = source.mark(rollout())
    first.answer(5)
    first.classes.clear()
    first.classes.labels("demo", "canary", 2, "travel").inc(3)
    found = observe(source, mark)
    assert (found.canary.requests, found.canary.classes) == (5, {"travel": 3})


def test_another_model_another_version_and_callers_who_went_away_are_not_counted(pages: tuple[Page, Page, Gateways]) -> None:
    first, _, source = pages
    mark = source.mark(rollout())
    first.answer(5, model="other")
    first.answer(5, version=3)
    first.answer(5, track="stable", version=2)
    first.answer(5, code="CANCELLED")
    first.answer(5, code="499")
    assert observe(source, mark).canary.requests == 0


def test_http_and_grpc_codes_tell_success_and_failure(pages: tuple[Page, Page, Gateways]) -> None:
    first, _, source = pages
    mark = source.mark(rollout())
    for code in ("OK", "200", "500", "400", "INVALID_ARGUMENT", "UNAVAILABLE"):
        first.answer(1, code=code)
    found = observe(source, mark)
    assert (found.canary.requests, found.canary.errors) == (6, 4)


def test_a_canary_for_which_stable_had_to_answer_has_failed(pages: tuple[Page, Page, Gateways]) -> None:
    first, _, source = pages
    mark = source.mark(rollout())
    first.fallbacks.labels("demo", "canary").inc(60)
    found = observe(source, mark)
    assert (found.canary.requests, found.canary.errors) == (60, 60)


def test_a_gateway_that_does_not_answer_is_said_to_be_away() -> None:
    with pytest.raises(Unavailable, match="did not answer"):
        Gateways(lambda: ["127.0.0.1:9"]).mark(rollout())


def test_a_canary_is_reached_when_each_gateway_has_a_server_of_its_version_to_ask(pages: tuple[Page, Page, Gateways]) -> None:
    first, second, source = pages
    assert not source.reaches(rollout(), 0), "nobody tells of any server"
    for page in (first, second):
        page.reach(1, track="stable", version=1)
    first.reach(1)
    assert not source.reaches(rollout(), 0), "the second gateway knows none"
    second.reach(0)
    second.reach(1, version=3, endpoint="10.0.0.9:8500")
    assert not source.reaches(rollout(), 0), "it knows one that is down, and one of another version"
    second.reach(1, endpoint="10.0.0.2:8500")
    assert source.reaches(rollout(), 0)
