"""A pod gets the version that was promised, whole, or nothing."""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mlserving import store
from mlserving.__main__ import main
from mlserving.errors import ConfigError, Conflict, Unavailable
from mlserving.fetch import fetch


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A store with demo 7."""
    source = tmp_path / "source"
    (source / "variables").mkdir(parents=True)
    (source / "saved_model.pb").write_text("graph")
    (source / "variables" / "variables.index").write_bytes(bytes(range(256)) * 64)
    return store.publish_version(tmp_path / "store", "demo", 7, source).parents[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_version_arrives_as_it_was_published(published: Path, tmp_path: Path) -> None:
    promised = store.digest(published / "demo" / "7")
    target = fetch(str(published), "demo", 7, to=tmp_path / "models", digest=promised)
    assert target == tmp_path / "models" / "demo" / "7"
    assert contents(target) == contents(published / "demo" / "7")
    assert store.digest(target) == promised


def test_a_version_that_was_written_over_is_refused_and_nothing_is_left(published: Path, tmp_path: Path) -> None:
    promised = store.digest(published / "demo" / "7")
    (published / "demo" / "7" / "saved_model.pb").write_text("another graph")
    with pytest.raises(Conflict, match=f"not what was promised: its sha256 is [0-9a-f]{{64}}, not {promised}"):
        fetch(str(published), "demo", 7, to=tmp_path / "models", digest=promised)
    assert contents(tmp_path / "models" / "demo") == {".lock": b""}


def test_what_a_killed_fetch_left_behind_is_replaced(published: Path, tmp_path: Path) -> None:
    (tmp_path / "models" / "demo" / "7" / "variables").mkdir(parents=True)
    (tmp_path / "models" / "demo" / "7" / "saved_model.pb").write_text("half a gr")
    (tmp_path / "models" / "demo" / ".7.0123").mkdir()
    target = fetch(str(published), "demo", 7, to=tmp_path / "models", digest=store.digest(published / "demo" / "7"))
    assert contents(target) == contents(published / "demo" / "7")
    assert sorted(path.name for path in target.parent.iterdir()) == [".lock", "7"]


def test_a_pod_whose_containers_start_again_needs_no_store(published: Path, tmp_path: Path) -> None:
    promised = store.digest(published / "demo" / "7")
    fetch(str(published), "demo", 7, to=tmp_path / "models", digest=promised)
    assert fetch("/the store is gone", "demo", 7, to=tmp_path / "models", digest=promised).is_dir()


def test_a_version_that_is_not_there_is_named_with_those_that_are(published: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no version 8 of demo. Versions there: 7\."):
        fetch(str(published), "demo", 8, to=tmp_path / "models")


def test_the_commands_promise_and_fetch(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["digest", str(published / "demo" / "7")]) == 0
    promised = capsys.readouterr().out.strip()
    words = ["fetch", "demo", "7", "--store", str(published), "--to", str(tmp_path / "models"), "--digest"]
    assert main([*words, promised]) == 0
    assert main([*words, "0" * 64]) == Conflict.exit_code
    assert main(["digest", str(published)]) == ConfigError.exit_code


class Bucket(ThreadingHTTPServer):
    """The two calls of Google Cloud Storage's JSON API that reading takes, over a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Objects)
        self.folder = folder
        self.cut = 0
        """Bytes that are missing from the end of each object."""

    @property
    def uri(self) -> str:
        return f"gs://anonymous@models/store?scheme=http&endpoint_override=127.0.0.1%3A{self.server_port}&retry_limit_seconds=1"


class _Objects(BaseHTTPRequestHandler):
    server: Bucket

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        question = dict(urllib.parse.parse_qsl(url.query))
        _, _, name = url.path.partition("/o/")
        if name:
            self._object(urllib.parse.unquote(name), media=question.get("alt") == "media" or "/download/" in self.path)
        else:
            self._list(question.get("prefix", ""))

    def _facts(self, name: str) -> dict[str, str]:
        size = len((self.server.folder / name).read_bytes())
        return {
            "kind": "storage#object",
            "bucket": "models",
            "name": name,
            "size": str(size),
            "generation": "1",
            "updated": "2026-01-01T00:00:00Z",
        }

    def _object(self, name: str, *, media: bool) -> None:
        if not (self.server.folder / name).is_file():
            self.send_error(404)
            return
        content = (self.server.folder / name).read_bytes()
        self._answer(content[: len(content) - self.server.cut] if media else json.dumps(self._facts(name)).encode())

    def _list(self, prefix: str) -> None:
        names = [str(path.relative_to(self.server.folder)) for path in sorted(self.server.folder.rglob("*")) if path.is_file()]
        items = [self._facts(name) for name in names if name.startswith(prefix)]
        self._answer(json.dumps({"kind": "storage#objects", "items": items}).encode())

    def _answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in the class above
        """Nobody reads it."""


@pytest.fixture
def bucket(published: Path) -> Iterator[Bucket]:
    """A bucket `models` with the store in its folder `store`."""
    with Bucket(published.parent) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_bucket_is_read_over_its_api(bucket: Bucket, published: Path, tmp_path: Path) -> None:
    promised = store.digest(published / "demo" / "7")
    target = fetch(bucket.uri, "demo", 7, to=tmp_path / "models", digest=promised)
    assert contents(target) == contents(published / "demo" / "7")


def test_a_version_that_the_bucket_lacks_is_named(bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"demo/8 has no saved_model\.pb"):
        fetch(bucket.uri, "demo", 8, to=tmp_path / "models")


def test_an_object_that_ends_early_is_noticed_without_any_promise(bucket: Bucket, tmp_path: Path) -> None:
    bucket.cut = 1
    with pytest.raises(Unavailable):
        fetch(bucket.uri, "demo", 7, to=tmp_path / "models")
    assert not (tmp_path / "models" / "demo" / "7").exists()


def test_a_bucket_that_does_not_answer_is_a_reason_to_try_again(bucket: Bucket, tmp_path: Path) -> None:
    bucket.shutdown()
    bucket.server_close()
    with pytest.raises(Unavailable, match="cannot be listed"):
        fetch(bucket.uri, "demo", 7, to=tmp_path / "models")
