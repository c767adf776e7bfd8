"""Which track answers, and what is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserving.errors import ConfigError
from mlserving.gateway.routing import logged, shadowed, track_of, unit
from mlserving.gateway.settings import FILE, Backend, Log, Model, Track


def a_model(canary: float = 10.0, shadow: float = 0.0, share: float = 0.1) -> Model:
    def at(weight: float) -> Backend:
        return Backend(grpc="127.0.0.1:8500", rest="127.0.0.1:8501", weight=weight)

    return Model(tracks={Track.STABLE: at(100 - canary), Track.CANARY: at(canary), Track.SHADOW: at(shadow)}, log=Log(share=share))


@given(st.text(max_size=50), st.floats(0, 100), st.floats(0, 100))
def test_whoever_is_in_the_canary_stays_in_it_while_it_grows(key: str, one: float, other: float) -> None:
    smaller, larger = sorted((one, other))
    if track_of("m", a_model(smaller), key) is Track.CANARY:
        assert track_of("m", a_model(larger), key) is Track.CANARY


def test_each_track_gets_its_share() -> None:
    chosen = [track_of("m", a_model(10), f"user-{n}") for n in range(20_000)]
    assert chosen.count(Track.CANARY) / 20_000 == pytest.approx(0.1, abs=0.01)


def test_what_is_logged_is_a_fair_share_of_both_tracks() -> None:
    model = a_model(50, share=0.2)
    for track in (Track.STABLE, Track.CANARY):
        ids = [f"id-{n}" for n in range(20_000) if track_of("m", model, f"id-{n}") is track]
        assert sum(logged(model, each) for each in ids) / len(ids) == pytest.approx(0.2, abs=0.02)


def test_one_model_s_canary_says_nothing_about_another_s() -> None:
    model = a_model(50)
    keys = [f"user-{n}" for n in range(4_000)]
    both = sum(track_of("a", model, key) is track_of("b", model, key) for key in keys)
    assert both / len(keys) == pytest.approx(0.5, abs=0.05)


def test_all_or_nothing_is_exact() -> None:
    ids = [f"id-{n}" for n in range(1_000)]
    assert all(shadowed(a_model(shadow=100), each) and logged(a_model(share=1), each) for each in ids)
    assert not any(shadowed(a_model(shadow=0), each) or logged(a_model(share=0), each) for each in ids)
    assert all(0 <= unit("log", each) < 1 for each in ids)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models: {m: {tracks: {canary: {grpc: 'a:1', rest: 'a:2', weight: 100}}}}", "tracks.stable is missing"),
        ("models: {m: {tracks: {stable: {grpc: 'a:1', rest: 'a:2', weight: 90}}}}", "add up to 90"),
        ("models: {m: {tracks: {stable: {grpc: 'a', rest: 'a:2', weight: 100}}}}", "models.m.tracks.stable.grpc"),
        ("models: {m: {tracks: {stable: {grpc: 'a:1', rest: 'a:2', weight: 100}}, stikcy: x}}", "models.m.stikcy"),
        ("models: {m: {tracks: {stable: {grpc: 'a:1', rest: 'a:2', weight: 100}}, sticky: X-User}}", "lower case"),
        ("models: [", "no YAML"),
        ("", "models: Field required"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_its_field(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        FILE.parse(text, "gateway.yaml")
