"""Texts that differ in digits, punctuation, case and space only are the same text."""

from __future__ import annotations

import pyarrow as pa

from mlpipelines.ingestion.near_duplicates import near_duplicates, normalised


def table(*texts: str | None, other: list[str] | None = None) -> pa.Table:
    return pa.table({"m": pa.array(texts, pa.string()), "o": pa.array(other or ["x"] * len(texts), pa.string())})


def test_noise_does_not_tell_texts_apart() -> None:
    texts = table("SQ *KELTEX CAFE 0173", "sq  keltex-café? 9", "Keltex Café", "ÉTÉ №5", None, "123 -")
    assert normalised(["m"], texts).to_pylist() == ["sq keltex cafe", "sq keltex café", "keltex café", "été", None, None]


def test_test_and_validation_rows_are_compared_with_training_rows() -> None:
    report = near_duplicates(
        ["m"],
        {
            "train": table("SHOP 1", "SHOP 2", "CAFE"),
            "validation": table("shop 77", "bar"),
            "test": table("Shop", "shop!", "cafe", "new place", None),
        },
    )
    assert report["validation"]["rows"] == 1
    assert (report["test"]["rows"], report["test"]["share"], report["test"]["distinct"]) == (3, 0.6, 2)
    assert [(e["text"], e["rows"]) for e in report["test"]["examples"]] == [("shop", 2), ("cafe", 1)]


def test_all_named_columns_count_together() -> None:
    splits = {"train": table("shop 1", other=["york"]), "test": table("shop 2", "shop 3", other=["YORK", "leeds"])}
    assert near_duplicates(["m", "o"], splits)["test"]["rows"] == 1
    assert near_duplicates(["m"], splits)["test"]["rows"] == 2


def test_examples_are_cut_and_carry_a_hash() -> None:
    long = "a very long merchant name that goes on and on"
    example = near_duplicates(["m"], {"train": table(long), "test": table(long)})["test"]["examples"][0]
    assert example["text"] == "a very long merchant na…"
    assert len(example["sha256"]) == 16


def test_without_columns_nothing_is_compared() -> None:
    assert near_duplicates([], {}) == {"columns": []}
