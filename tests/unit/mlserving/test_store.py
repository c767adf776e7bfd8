"""The model store promises that a version is there whole or not at all, whoever is killed when."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlserving.errors import ConfigError, Conflict, Unavailable
from mlserving.store import EXTRA, digest, models, prune, publish_version, versions


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "models"


def saved_model(folder: Path, content: str = "graph") -> Path:
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(content)
    (folder / "variables" / "variables.index").write_text("index")
    return folder


def add_requests(folder: Path) -> None:
    (folder / EXTRA).mkdir()
    (folder / EXTRA / "requests").write_text("requests")


def test_a_published_version_has_every_file_of_its_source(store: Path, tmp_path: Path) -> None:
    target = publish_version(store, "demo", 3, saved_model(tmp_path / "source"))
    assert target == store / "demo" / "3"
    assert (target / "saved_model.pb").read_text() == "graph"
    assert (target / "variables" / "variables.index").read_text() == "index"


def test_versions_are_numbers_in_ascending_order_and_nothing_else_counts(store: Path, tmp_path: Path) -> None:
    source = saved_model(tmp_path / "source")
    for version in (10, 2, 1):
        publish_version(store, "demo", version, source)
    for other in (".4.tmp", "007", "latest", "+5"):
        (store / "demo" / other).mkdir()
    (store / "demo" / "8").write_text("a file")
    assert versions(store, "demo") == [1, 2, 10]
    assert versions(store, "absent") == []


def test_models_are_the_folders_with_a_version(store: Path, tmp_path: Path) -> None:
    publish_version(store, "demo", 1, saved_model(tmp_path / "source"))
    (store / "empty").mkdir()
    (store / ".hidden" / "1").mkdir(parents=True)
    assert models(store) == ["demo"]
    assert models(store / "absent") == []


def test_publishing_the_same_again_changes_nothing(store: Path, tmp_path: Path) -> None:
    source = saved_model(tmp_path / "source")
    before = publish_version(store, "demo", 1, source).stat().st_ino
    assert publish_version(store, "demo", 1, source).stat().st_ino == before


def test_what_completes_a_version_sees_it_before_anybody_else(store: Path, tmp_path: Path) -> None:
    source, seen = saved_model(tmp_path / "source"), []

    def complete(folder: Path) -> None:
        seen.append((folder.name[0], versions(store, "demo"), (folder / "saved_model.pb").read_text()))
        add_requests(folder)

    target = publish_version(store, "demo", 1, source, complete)
    assert seen == [(".", [], "graph")]
    assert (target / EXTRA / "requests").read_text() == "requests"
    assert not (source / EXTRA).exists()
    assert publish_version(store, "demo", 1, source, complete) == target
    assert len(seen) == 1


def test_a_refusal_publishes_nothing_leaves_nothing_and_reaches_the_caller(store: Path, tmp_path: Path) -> None:
    class Refused(Exception):
        pass

    def refuse(folder: Path) -> None:
        add_requests(folder)
        raise Refused

    with pytest.raises(Refused):
        publish_version(store, "demo", 1, saved_model(tmp_path / "source"), refuse)
    assert [path.name for path in (store / "demo").iterdir()] == [".lock"]


def test_everything_is_on_the_disk_before_the_version_appears(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[str, list[int]]] = []
    monkeypatch.setattr("mlserving.store._flush", lambda path: flushed.append((path.name, versions(store, "demo"))))
    publish_version(store, "demo", 1, saved_model(tmp_path / "source"), add_requests)
    (*before, fresh), parent = flushed[:-1], flushed[-1]
    assert {name for name, _ in before} == {"saved_model.pb", "variables", "variables.index", EXTRA, "requests"}
    assert fresh[0].startswith(".1.")
    assert all(seen == [] for _, seen in flushed[:-1])
    assert parent == ("demo", [1])


@pytest.mark.parametrize("change", ["another file", "one file less", "other requests"])
def test_the_same_version_with_any_other_file_is_a_conflict(store: Path, tmp_path: Path, change: str) -> None:
    source = saved_model(tmp_path / "source")
    add_requests(source)
    publish_version(store, "demo", 1, source)
    match change:
        case "another file":
            (source / "variables" / "more").write_text("more")
        case "one file less":
            (source / "variables" / "variables.index").unlink()
        case _:
            (source / EXTRA / "requests").write_text("others")
    with pytest.raises(Conflict, match="already"):
        publish_version(store, "demo", 1, source)


def test_a_published_version_is_never_replaced(store: Path, tmp_path: Path) -> None:
    publish_version(store, "demo", 1, saved_model(tmp_path / "first"))
    with pytest.raises(Conflict, match="already"):
        publish_version(store, "demo", 1, saved_model(tmp_path / "second", content="another"))
    assert (store / "demo" / "1" / "saved_model.pb").read_text() == "graph"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "a b"])
def test_a_name_that_cannot_be_a_folder_is_refused(store: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a model"):
        publish_version(store, name, 1, saved_model(tmp_path / "source"))


def test_what_is_not_a_saved_model_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a SavedModel"):
        publish_version(store, "demo", 1, tmp_path)


def test_a_full_disk_publishes_nothing_and_leaves_nothing(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved_model(tmp_path / "source")

    def no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", no_space)
    with pytest.raises(Unavailable, match=r"No space left on device.*Free some space"):
        publish_version(store, "demo", 1, source)
    assert versions(store, "demo") == []
    assert [path.name for path in (store / "demo").iterdir()] == [".lock"]


def test_a_publisher_that_is_killed_leaves_nothing_that_a_server_would_load(store: Path, tmp_path: Path) -> None:
    source = saved_model(tmp_path / "source")
    slow = "import os,time,sys\nfrom pathlib import Path\nfrom mlserving import store\n"
    slow += "store._flush = lambda path: (print('writing', flush=True), time.sleep(60))\n"
    slow += "store.publish_version(Path(sys.argv[1]), 'demo', 1, Path(sys.argv[2]))\n"
    with subprocess.Popen([sys.executable, "-c", slow, store, source], stdout=subprocess.PIPE) as publisher:
        assert publisher.stdout is not None
        publisher.stdout.readline()
        publisher.kill()
    assert versions(store, "demo") == []
    assert len([path for path in (store / "demo").iterdir() if path.is_dir()]) == 1
    publish_version(store, "demo", 1, source)
    assert sorted(path.name for path in (store / "demo").iterdir()) == [".lock", "1"]


def test_the_next_writer_waits_for_a_living_publisher_and_spares_what_it_writes(store: Path, tmp_path: Path) -> None:
    source = saved_model(tmp_path / "source")
    slow = "import time,sys\nfrom pathlib import Path\nfrom mlserving import store\n"
    slow += "store._flush = lambda path: (print('writing', flush=True), time.sleep(0.1))\n"
    slow += "store.publish_version(Path(sys.argv[1]), 'demo', 1, Path(sys.argv[2]))\n"
    with subprocess.Popen([sys.executable, "-c", slow, store, source], stdout=subprocess.PIPE) as publisher:
        assert publisher.stdout is not None
        publisher.stdout.readline()
        assert prune(store, "demo", keep=1, protect=set()) == []
        assert versions(store, "demo") == [1]
        publisher.communicate(timeout=30)
    assert versions(store, "demo") == [1]


def test_pruning_keeps_the_newest_and_the_protected(store: Path, tmp_path: Path) -> None:
    source = saved_model(tmp_path / "source")
    for version in range(1, 6):
        publish_version(store, "demo", version, source)
    assert prune(store, "demo", keep=2, protect={1}) == [2, 3]
    assert versions(store, "demo") == [1, 4, 5]


def test_pruning_never_empties_a_model(store: Path) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        prune(store, "demo", keep=0, protect=set())


def test_a_copy_has_the_same_digest_and_a_changed_byte_another(tmp_path: Path) -> None:
    original, copy = tmp_path / "one", tmp_path / "two"
    for folder in (original, copy):
        (folder / "variables").mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(b"graph")
        (folder / "variables" / "data").write_bytes(b"weights")
    assert digest(original) == digest(copy)
    (copy / "variables" / "data").write_bytes(b"weightS")
    assert digest(original) != digest(copy)
