"""What the program writes is what the provider's own types and documentation know: mypy does not read those 130 MB, so it is held here.

A misspelt key of a nested section would otherwise be told by Google, in the middle of a run.
"""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from pulumi import _types  # the library's own map from its names to Pulumi's has no public door

from clouds import EVERY, made
from mlplatform.infrastructure import Resource

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pulumi_gcp")  # it warns of its own misspelt names when imported

WORD = re.compile(r"^[A-Z][A-Z0-9]+(_[A-Z0-9]+)*$")
"""What Google's enumerations look like."""
UNDOCUMENTED = {
    "format": "DOCKER: the text links Google's list",
    "currencyCode": "ISO 4217",
    "location": "EU: the text links Google's list",
    "imageType": "COS_CONTAINERD: the text names no value",
}


def arguments_of(resource: Resource) -> type:
    """The provider's class for what that resource takes."""
    module, _, name = resource.type.removeprefix("gcp:").partition("/")
    found: type = getattr(importlib.import_module(f"pulumi_gcp.{module}"), f"{name.rpartition(':')[2]}Args")
    return found


def plain(hint: Any) -> Any:
    """A type without what Pulumi allows around it: outputs, futures, None."""
    around = (collections.abc.Awaitable,)
    while typing.get_origin(hint) is typing.Union:
        inner = [
            one
            for one in typing.get_args(hint)
            if typing.get_origin(one) not in around and one is not type(None) and "Output" not in str(one)
        ]
        hint = inner[0]
    return hint


def misfits(value: Any, hint: Any, path: str) -> Iterator[str]:
    """Where a value is not what the type says."""
    hint = plain(hint)
    if _types.is_input_type(hint):
        yield from fields_that_misfit(value, hint, path)
    elif typing.get_origin(hint) is collections.abc.Sequence:
        for index, item in enumerate(value):
            yield from misfits(item, typing.get_args(hint)[0], f"{path}[{index}]")
    elif typing.get_origin(hint) is collections.abc.Mapping:
        for key, item in value.items():
            yield from misfits(item, typing.get_args(hint)[1], f"{path}.{key}")
    elif not isinstance(value, (int, float) if hint is float else hint) or (hint is int and isinstance(value, bool)):
        yield f"{path}: {value!r} is no {hint.__name__}"


@cache
def fields(of: type) -> tuple[dict[str, str], dict[str, type]]:
    """Our name and the type of each field, by Pulumi's name; slow to find, and asked for often."""
    return {theirs: ours for ours, theirs in _types.input_type_py_to_pulumi_names(of).items()}, _types.input_type_types(of)


@cache
def documented(of: type, field: str) -> str:
    """What the provider's texts say of a field. Of a pool's sections they say it once, where a cluster has the same ones."""
    section = of.__name__.removeprefix("NodePool")
    same = [kind for name, kind in vars(sys.modules[of.__module__]).items() if section != of.__name__ and name.endswith(section)]
    return " ".join(getattr(getattr(kind, field, None), "__doc__", None) or "" for kind in [of, *same])


def fields_that_misfit(value: Any, of: type, path: str) -> Iterator[str]:
    """Keys that the class does not know or misses, and the same for what they hold."""
    names, types = fields(of)
    pulumis = {ours: theirs for theirs, ours in names.items()}
    for needed, parameter in list(inspect.signature(of.__init__).parameters.items())[1:]:  # type: ignore[misc]  # the class is made by a generator
        if parameter.default is inspect.Parameter.empty and pulumis[needed] not in value:
            yield f"{path}: has no {pulumis[needed]}"
    for key, inner in value.items():
        if key not in names:
            yield f"{path}: knows no {key}"
            continue
        yield from misfits(inner, types[key], f"{path}.{key}")
        for word in inner if isinstance(inner, list) else [inner]:
            if isinstance(word, str) and WORD.match(word) and key not in UNDOCUMENTED and word not in documented(of, names[key]):
                yield f"{path}.{key}: the provider's documentation does not name {word}"


@pytest.mark.parametrize("name", EVERY)
def test_every_input_is_one_that_the_provider_knows(name: str) -> None:
    assert [wrong for one in made(name) for wrong in fields_that_misfit(one.inputs, arguments_of(one), f"{one.type} {one.name}")] == []


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"location": "x", "versioning": {"enable": True}}, ["b.versioning: has no enabled", "b.versioning: knows no enable"]),
        ({"location": "x", "forceDestroy": "yes"}, ["b.forceDestroy: 'yes' is no bool"]),
        ({"labels": {"a": 1}}, ["b: has no location", "b.labels.a: 1 is no str"]),
    ],
)
def test_a_misspelt_input_is_found(inputs: dict[str, Any], words: list[str]) -> None:
    bucket = Resource(type="gcp:storage/bucket:Bucket", name="b", inputs=inputs)
    assert list(fields_that_misfit(inputs, arguments_of(bucket), "b")) == words


def test_a_value_that_is_not_documented_is_found() -> None:
    pool = Resource(type="gcp:container/nodePool:NodePool", name="p", inputs={})
    inputs = {"cluster": "c", "upgradeSettings": {"strategy": "SHORT"}, "autoscaling": {"locationPolicy": "SOME"}}
    assert len(list(fields_that_misfit(inputs, arguments_of(pool), "p"))) == 2
