"""Which model a message names, against protobuf itself."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserving import wire
from mlserving.gateway.model_spec import ANSWER, MULTI_INFERENCE, Malformed, Spec, inflated, message_of, read_spec

_SPECS = st.fixed_dictionaries(
    {}, optional={"name": st.text(max_size=20), "version": st.integers(-(2**63), 2**63 - 1), "label": st.text(max_size=9)}
)


def a_request(spec: dict[str, Any], inputs: list[str] = []) -> Any:  # noqa: B006  never changed
    message = wire.PredictRequest()
    message.model_spec.signature_name = "serving_default"
    if "name" in spec:
        message.model_spec.name = spec["name"]
    if "version" in spec:
        message.model_spec.version.value = spec["version"]
    if "label" in spec:
        message.model_spec.version_label = spec["label"]
    for name in inputs:
        message.inputs[name].string_val.append(name.encode() * 40)
    return message


@given(_SPECS, st.lists(st.text(min_size=1, max_size=5), max_size=4))
def test_it_is_what_protobuf_reads(spec: dict[str, Any], inputs: list[str]) -> None:
    assert read_spec(a_request(spec, inputs).SerializeToString()) == Spec(
        spec.get("name", ""), spec.get("version", 0), spec.get("label", "")
    )


@given(_SPECS, _SPECS)
def test_what_stands_twice_is_merged_as_protobuf_merges_it(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Otherwise a caller could name one model to the gateway and another to the model server."""
    both = a_request(one).SerializeToString() + a_request(other).SerializeToString()
    merged = wire.PredictRequest.FromString(both).model_spec
    assert read_spec(both) == Spec(merged.name, merged.version.value, merged.version_label)


@given(st.integers(1, 2**62), st.lists(st.text(min_size=1, max_size=5), max_size=3))
def test_an_answer_names_its_version_wherever_it_stands(version: int, outputs: list[str]) -> None:
    message = wire.PredictResponse()
    message.model_spec.version.value = version
    for name in outputs:
        message.outputs[name].float_val.extend([1.0, 2.0])
    content = message.SerializeToString()
    assert read_spec(content, ANSWER).version == version
    assert read_spec(content[::1], ANSWER).name == ""


def test_the_tasks_of_multi_inference_name_it() -> None:
    spec = a_request({"name": "m", "version": 3}).model_spec.SerializeToString()
    task = b"\x0a" + bytes((len(spec),)) + spec + b"\x12\x02hi"
    assert read_spec(b"\x0a" + bytes((len(task),)) + task + b"\x12\x00", MULTI_INFERENCE) == Spec("m", 3, "")


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        found = read_spec(data)
    except Malformed:
        return
    assert isinstance(found.name, str)


@given(st.binary(max_size=60), st.integers(0, 60))
def test_what_protobuf_reads_is_never_refused_and_what_is_cut_off_never_read_as_another(extra: bytes, cut: int) -> None:
    whole = a_request({"name": "model", "version": 7}, ["x"]).SerializeToString()
    try:
        wire.PredictRequest.FromString(whole[:cut])
    except Exception:  # noqa: BLE001  protobuf's own refusal
        with pytest.raises(Malformed):
            read_spec(whole[:cut])
    else:
        assert read_spec(whole[:cut]).name in {"", "model"}


@given(st.binary(max_size=2000))
def test_a_compressed_message_is_read(message: bytes) -> None:
    for encoding, packed in (("gzip", gzip.compress(message)), ("deflate", zlib.compress(message))):
        data = b"\x01" + len(packed).to_bytes(4, "big") + packed
        assert message_of(data, encoding, 2000) == message
        with pytest.raises(Malformed):
            message_of(data[:-1], encoding, 2000)
    assert message_of(b"\x00" + len(message).to_bytes(4, "big") + message, "identity", 2000) == message


def test_a_bomb_does_not_go_off() -> None:
    bomb = gzip.compress(b"\x00" * 50_000_000)
    with pytest.raises(Malformed, match="too large"):
        inflated(bomb, 1_000_000)
    assert len(inflated(gzip.compress(b"\x00" * 1_000_000), 1_000_000)) == 1_000_000
