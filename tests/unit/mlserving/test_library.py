"""A version is lent to requests and closed when the last of them is done."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from mlserving.client.signature import ModelSpec
from mlserving.errors import Unavailable
from mlserving.server.answer_errors import RequestError
from mlserving.server.library import Library
from mlserving.server.versions import Every, ServedModel

DEMO = ModelSpec(name="demo")


class Opened:
    """A loaded version as the library knows it: something to close."""

    def __init__(self, _: str, version: int, folder: Path) -> None:
        if (folder / "broken").exists():
            raise Unavailable("broken on purpose")
        self.version = version
        self.closed = False

    def close(self) -> None:
        self.closed = True


def version(base: Path, number: int, *, broken: bool = False) -> None:
    folder = base / str(number)
    folder.mkdir(parents=True)
    (folder / ("broken" if broken else "saved_model.pb")).touch()


def settled(library: Library, *models: ServedModel) -> Library:
    while library.reconcile(models):
        pass
    return library


@pytest.fixture
def library() -> Library:
    load: Any = Opened  # a Servable needs TensorFlow; the library needs only `close`
    return Library(load)


@pytest.fixture
def demo(tmp_path: Path) -> ServedModel:
    version(tmp_path / "demo", 1)
    return ServedModel(name="demo", base_path=tmp_path / "demo", labels={"stable": 1, "canary": 2})


def test_a_borrowed_version_stays_open_until_it_is_given_back(library: Library, demo: ServedModel) -> None:
    settled(library, demo)
    with library.borrowed(DEMO) as first:
        version(demo.base_path, 2)
        settled(library, demo)
        with library.borrowed(DEMO) as second:
            assert (first.version, second.version) == (1, 2)
        assert library.status(DEMO)[1].state == "UNLOADING"
        assert not getattr(first, "closed")  # noqa: B009  an Opened, typed as a Servable
    settled(library, demo)
    assert getattr(first, "closed")  # noqa: B009
    assert [(state.version, state.state) for state in library.status(DEMO)] == [(2, "AVAILABLE"), (1, "END")]


def test_a_version_that_does_not_load_is_reported_and_the_old_one_answers(library: Library, demo: ServedModel) -> None:
    settled(library, demo)
    version(demo.base_path, 2, broken=True)
    settled(library, demo)
    newest, oldest = library.status(DEMO)
    assert (newest.version, newest.state, newest.error) == (2, "END", "broken on purpose")
    assert (oldest.version, oldest.state) == (1, "AVAILABLE")
    assert library.available() == {"demo": [1]}


def test_a_broken_version_is_tried_again_only_when_its_folder_changes(library: Library, demo: ServedModel) -> None:
    version(demo.base_path, 2, broken=True)
    settled(library, demo)
    assert not library.reconcile([demo])
    (demo.base_path / "2" / "broken").rename(demo.base_path / "2" / "saved_model.pb")
    settled(library, demo)
    assert library.available() == {"demo": [2]}
    assert library.failures() == {}


def test_a_model_that_is_no_longer_wanted_is_closed(library: Library, demo: ServedModel) -> None:
    settled(library, demo)
    with library.borrowed(DEMO) as servable:
        pass
    settled(library)
    assert getattr(servable, "closed")  # noqa: B009
    with pytest.raises(RequestError, match="Models served here: none"), library.borrowed(DEMO):
        pass


def test_labels_and_numbers_choose_the_version(library: Library, demo: ServedModel) -> None:
    version(demo.base_path, 2)
    settled(library, ServedModel(name="demo", base_path=demo.base_path, policy=Every(), labels=demo.labels))
    chosen = {}
    for spec in (DEMO, ModelSpec(name="demo", version=1), ModelSpec(name="demo", label="stable")):
        with library.borrowed(spec) as servable:
            chosen[str(spec)] = servable.version
    assert chosen == {"demo": 2, "demo version 1": 1, "demo label stable": 1}


@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        (ModelSpec(name="other"), "NOT_FOUND", "Models served here: demo"),
        (ModelSpec(name="demo", version=9), "NOT_FOUND", "Served versions of demo: 1"),
        (ModelSpec(name="demo", label="canary"), "NOT_FOUND", "Served versions of demo: 1"),
        (ModelSpec(name="demo", label="nope"), "INVALID_ARGUMENT", "Labels of demo: canary, stable"),
    ],
)
def test_asking_for_what_is_not_there_tells_what_is(library: Library, demo: ServedModel, spec: ModelSpec, code: str, text: str) -> None:
    settled(library, demo)
    with pytest.raises(RequestError, match=text) as caught, library.borrowed(spec):
        pass
    assert caught.value.code == code


def test_no_borrower_ever_sees_a_closed_version_while_versions_come_and_go(library: Library, demo: ServedModel) -> None:
    settled(library, demo)
    stop, seen, failures = threading.Event(), set(), []

    def ask() -> None:
        while not stop.is_set():
            with library.borrowed(DEMO) as servable:
                seen.add(servable.version)
                if getattr(servable, "closed"):  # noqa: B009
                    failures.append(servable.version)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(2, 40):
        version(demo.base_path, number)
        settled(library, demo)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert library.available() == {"demo": [39]}
