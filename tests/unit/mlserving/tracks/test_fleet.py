from __future__ import annotations

from mlserving.gateway.settings import GatewaySettings, Track
from mlserving.rollout.document import Desired, Wanted, without_canary
from mlserving.rollout.plan import Phase
from mlserving.tracks.fleet import Address, InForce, Member, file_of, is_in_force, needed, next_settings
from rollouts import rollout, served


def canary(weight: float = 0.0) -> Desired:
    tracks = {Track.STABLE: Wanted(version=1, weight=100 - weight), Track.CANARY: Wanted(version=2, weight=weight)}
    return Desired(model="demo", revision=2, tracks=tracks)


def address(number: int) -> Address:
    return Address(grpc=f"127.0.0.1:{number}", rest=f"127.0.0.1:{number + 1}")


ONE, TWO = Member("demo", 1), Member("demo", 2)


def test_until_a_version_is_loaded_the_gateway_goes_on_as_before() -> None:
    before = next_settings([served()], {ONE: address(10)}, {})
    still = next_settings([canary(10)], {ONE: address(10)}, before)
    assert still["demo"].desired.revision == 1
    now = next_settings([canary(10)], {ONE: address(10), TWO: address(20)}, still)
    assert now["demo"].desired.revision == 2
    assert now["demo"].settings.tracks[Track.CANARY].grpc == "127.0.0.1:20"


def test_a_model_that_was_never_loaded_is_not_told_of() -> None:
    assert next_settings([served()], {}, {}) == {}


def test_a_server_that_came_back_elsewhere_is_told_of_even_while_another_is_loaded() -> None:
    before = next_settings([served()], {ONE: address(10)}, {})
    moved = next_settings([canary()], {ONE: address(30)}, before)
    assert moved["demo"].settings.tracks[Track.STABLE].grpc == "127.0.0.1:30"


def test_a_version_that_the_gateway_still_sends_requests_to_is_needed() -> None:
    before = next_settings([canary(10)], {ONE: address(10), TWO: address(20)}, {})
    assert needed([without_canary(canary())], before) == {ONE, TWO}
    assert needed([without_canary(canary())], next_settings([without_canary(canary())], {ONE: address(10)}, before)) == {ONE}


def test_the_file_is_one_that_the_gateway_reads() -> None:
    told = next_settings([canary(10)], {ONE: address(10), TWO: address(20)}, {})
    assert GatewaySettings.model_validate(file_of(told)).models["demo"].tracks[Track.CANARY].weight == 10


def test_the_gateway_is_told_of_the_rollout_that_sets_its_weights() -> None:
    desired = canary(10).model_copy(update={"rollout": rollout(phase=Phase.CANARY, step=1)})
    told = next_settings([desired], {ONE: address(10), TWO: address(20)}, {})["demo"].settings.rollout
    assert told is not None
    assert (told.id, told.from_version, told.to_version, told.phase, told.step, told.steps) == ("r", 1, 2, Phase.CANARY, 1, 4)


def test_a_rollout_is_told_of_before_its_version_is_loaded_and_moves_nothing() -> None:
    before = next_settings([served()], {ONE: address(10)}, {})
    starting = canary(0).model_copy(update={"rollout": rollout(phase=Phase.STARTING)})
    still = next_settings([starting], {ONE: address(10)}, before)["demo"]
    assert still.desired == before["demo"].desired
    assert still.settings.tracks == before["demo"].settings.tracks
    assert still.settings.rollout is not None
    assert still.settings.rollout.phase is Phase.STARTING


def page(told: InForce, *, up: bool = True, version: int | None = None) -> dict[str, object]:
    tracks = {
        track.value: {
            "grpc": backend.grpc,
            "rest": backend.rest,
            "weight": backend.weight,
            "endpoints": [{"up": up, "version": version or told.desired.tracks[track].version}],
        }
        for track, backend in told.settings.tracks.items()
    }
    return {"models": {"demo": {"tracks": tracks}}}


def test_settings_are_in_force_when_weights_addresses_and_versions_are_those_that_were_told() -> None:
    told = next_settings([canary(10)], {ONE: address(10), TWO: address(20)}, {})["demo"]
    other = next_settings([canary(50)], {ONE: address(10), TWO: address(20)}, {})["demo"]
    assert is_in_force(page(told), told)
    assert not is_in_force(page(other), told)
    assert not is_in_force(page(told, up=False), told)
    assert not is_in_force(page(told, version=7), told)
    assert not is_in_force({}, told)
