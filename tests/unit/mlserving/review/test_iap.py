"""Keys of the Identity-Aware Proxy: where they come from, when they are asked for again, and what is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from identity_proxy import Signer, key_server, key_set
from mlserving.errors import ConfigError, Unavailable
from mlserving.review.iap import Keys, keys_in


def test_a_key_is_asked_for_once_and_kept() -> None:
    one = Signer("one")
    with key_server(key_set(one)) as server:
        keys = Keys(server.url)
        first = keys.of("one")
        assert first is not None
        assert first.startswith(b"-----BEGIN PUBLIC KEY-----")
        assert keys.of("one") == first
        assert server.asked == 1


def test_a_key_that_was_published_since_is_found() -> None:
    one, other = Signer("one"), Signer("other")
    with key_server(key_set(one)) as server:
        keys = Keys(server.url, pause=0)
        keys.of("one")
        server.text = key_set(other)
        assert keys.of("other") is not None
        assert keys.of("one") is None, "one that was withdrawn counts no more"


def test_strangers_who_name_unknown_keys_do_not_make_us_ask_each_time() -> None:
    with key_server(key_set(Signer("one"))) as server:
        keys = Keys(server.url, pause=3600)
        assert [keys.of(f"unknown-{number}") for number in range(50)] == [None] * 50
        assert server.asked == 1


def test_keys_that_were_read_count_while_their_server_is_gone() -> None:
    with key_server(key_set(Signer("one"))) as server:
        keys = Keys(server.url, pause=0)
        keys.of("one")
        server.text = None
        assert keys.of("other") is None
        assert keys.of("one") is not None
        server.text = "<html>no keys</html>"
        assert keys.of("other") is None
        assert keys.of("one") is not None


def test_without_any_key_nobody_is_let_in_and_a_later_try_finds_them() -> None:
    with key_server(None) as server:
        keys = Keys(server.url, pause=0)
        with pytest.raises(Unavailable, match="Nobody is let in"):
            keys.of("one")
        server.text = key_set(Signer("one"))
        assert keys.of("one") is not None


def test_keys_may_lie_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(key_set(Signer("one")))
    assert Keys(str(file)).of("one") is not None


@pytest.mark.parametrize("source", ["http://keys.example/jwk", "keys.json", "ftp://127.0.0.1/keys"])
def test_keys_that_somebody_in_between_could_change_are_refused(source: str) -> None:
    with pytest.raises(ConfigError, match="https address"):
        Keys(source)


def test_only_keys_for_es256_count() -> None:
    one = Signer("one")
    others = [
        {"kid": "rsa", "kty": "RSA", "n": "AQ", "e": "AQAB"},
        {**one.public, "kid": "p384", "crv": "P-384"},
        {"kty": "oct", "k": "AA"},
    ]
    assert set(keys_in(json.dumps({"keys": [one.public, *others]}).encode())) == {"one"}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"keys": [1]}', '{"keys": [{"kty": "EC", "crv": "P-256", "kid": "a", "x": "AA", "y": "AA"}]}']
)
def test_what_is_no_key_set_is_no_key(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        keys_in(text.encode())
