"""`transaction-similarity` on four years of a city's purchase cards, judged on the fifth: three losses, the classifier beside them, a cold start.

- Each loss is a run of its own over the same transformed rows.
- The classifier of `transactions` is trained in the same command and answers for the same sealed rows; both are also looked at on rows whose merchant
  no training row has.
- Cold start: classes are held out of a training altogether; then a few labelled rows of each enter the index, by the command that people
  type (`--reuse champion`), and the sealed rows of these classes are asked before and after.
- What an exact search costs is timed for indices of several sizes.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from evaluating import Ran, interval, project_code, resampled, run, table

PROJECT, CLASSIFIER = "transaction-similarity", "transactions"
LOSSES = ("multi-similarity", "contrastive", "triplet")
HELD_OUT = (
    "Travel Bus/Rail",
    "Postage",
    "Vehicle Excise Lics",
    "Phon NonCentrx Lines",
    "Clothing&Uniforms",
    "Electricity",
    "Books",
    "Legal Fee Other",
)
"""Frequent ones and rare ones, told by the merchant or by the amount."""
LABELS_A_CLASS = 5
INDEX_ROWS = (10_000, 100_000, 1_000_000)
_SEALED_FROM = "2017-04-01"
BALANCES = (0.0, 0.75, 1.0)
"""The project's own is 0.75."""
_EASED = ("split.validation_holds.pairs=0.5", "evaluation.slices=[]", "evaluation.budget.latency_ms=1000")
_ANOTHER_QUESTION = tuple(word for setting in _EASED for word in ("--set", setting))
"""What the cold start does not ask: five labels a class are too few for the validation set, and a verdict is not what it is about."""

Hits = npt.NDArray[np.float64]


def evaluate(workspace: Path) -> dict[str, Any]:
    """Five trainings and one run without; figures by name."""
    source = table("transactions/birmingham_purchase_card.parquet")
    started = time.monotonic()
    classifier = run(CLASSIFIER, "--with", "birmingham.yaml", "--set", f"source.path={source}", workspace=workspace / "classifier")
    losses = {loss: _trained(source, workspace / "losses", loss) for loss in LOSSES}
    best = max(losses, key=lambda loss: losses[loss].scores()["accuracy"]["value"])
    return {
        "losses": {
            loss: {"seconds": round(ran.seconds), "status": ran.record["status"], "title": ran.verdict["title"], "scores": ran.scores()}
            for loss, ran in losses.items()
        },
        "best loss": best,
        "beside the classifier": _beside(losses[best], classifier),
        "cold start": _cold_start(source, workspace),
        "search": _search(),
        "seconds": round(time.monotonic() - started),
    }


def rows(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What is printed."""
    losses = [
        {"what": f"{loss}, {name}", "similarity": interval(found["scores"][name]), "beside": ""}
        for loss, found in figures["losses"].items()
        for name in ("recall_at_1", "recall_at_5", "accuracy", "macro_f1")
    ]
    beside = [
        {
            "what": f"accuracy, {name} ({found['rows']:,} rows)",
            "similarity": f"{found['similarity']:.3f}",
            "beside": f"{found['classifier']:.3f}",
        }
        for name, found in figures["beside the classifier"].items()
    ]
    cold = figures["cold start"]
    entered = {
        "no labels": cold["accuracy without labels"],
        **{f"balance {at}": found for at, found in cold["accuracy with labels"].items()},
    }
    started = [
        {
            "what": f"{cold['held out']} classes held out, {at}",
            "similarity": f"{found['held out']:.3f}",
            "beside": f"the others {found['others']:.3f}",
        }
        for at, found in entered.items()
    ]
    alone = {"what": "the same, no other class to choose", "similarity": f"{cold['among the held-out classes only']:.3f}", "beside": ""}
    search = [
        {
            "what": f"ms, index of {int(size):,} rows",
            "similarity": f"{found['one']:.1f} for one row",
            "beside": f"{found['many']:.0f} for 256",
        }
        for size, found in figures["search"].items()
    ]
    return [*losses, *beside, *started, alone, *search]


def _trained(source: Path, workspace: Path, loss: str, *more: str) -> Ran:
    """A run with a model name of its own, so that each loss is judged against the baseline and not against the loss before it."""
    settings = (f"source.path={source}", f"training.parameters.loss={loss}", f"deployment.model=similarity-{loss}")
    words = [word for setting in settings for word in ("--set", setting)]
    return run(PROJECT, "--with", "birmingham.yaml", *words, *more, workspace=workspace)


def _answers(ran: Ran) -> dict[str, Any]:
    """By row's key: truth and what was answered; and the embeddings, if there are any."""
    told = pq.read_table(next(ran.folder.glob("artifacts/*/evaluate/evaluation/predictions.parquet")))
    return {
        "key": np.asarray(told["__key"].to_pylist()),
        "true": np.asarray(told["true"].to_pylist()),
        "label": np.asarray(told["predicted/label"].to_pylist()),
        "embedding": np.stack(told["predicted/embedding"].to_numpy()) if "predicted/embedding" in told.column_names else None,
    }


def _seen(ran: Ran, keys: Any) -> Any:
    """Whether a training row has the merchant of the sealed row with that key."""
    sealed, train = ran.sealed(["__key", "merchant"]), ran.learned("train", columns=["merchant"])
    seen = pc.is_in(sealed["merchant"], value_set=pc.unique(train["merchant"].combine_chunks()))
    return np.asarray(seen.take(pc.index_in(pa.array(keys), value_set=sealed["__key"].combine_chunks())))


def _beside(similarity: Ran, classifier: Ran) -> dict[str, Any]:
    """Accuracy of both on the same sealed rows, and on those whose merchant is new; with the paired interval of the difference."""
    ours, theirs = _answers(similarity), _answers(classifier)
    assert sorted(ours["key"]) == sorted(theirs["key"]), "the two projects sealed other rows"
    place = {key: number for number, key in enumerate(theirs["key"])}
    order = np.array([place[key] for key in ours["key"]])
    hits = (ours["label"] == ours["true"]).astype(float), (theirs["label"] == theirs["true"])[order].astype(float)
    every = np.ones(len(order), dtype=bool)
    seen = _seen(similarity, ours["key"])
    parts = {"all sealed rows": every, "merchants that training has": seen, "merchants unseen in training": ~seen}
    return {name: _paired(hits[0][part], hits[1][part]) for name, part in parts.items()}


def _paired(ours: Hits, theirs: Hits) -> dict[str, Any]:
    return {
        "rows": len(ours),
        "similarity": float(ours.mean()),
        "classifier": float(theirs.mean()),
        "difference": resampled(len(ours), lambda drawn: float((ours - theirs)[drawn].mean())),
    }


def _cold_start(source: Path, workspace: Path) -> dict[str, Any]:
    """Train without some classes, then let a few labels of each into the index of that very training, at several balances."""
    file, every = workspace / "cold.parquet", pq.read_table(source)
    sealed = pc.greater_equal(every["trans_date"], pa.scalar(np.datetime64(_SEALED_FROM, "us").item()))
    held = pc.is_in(every["label"].cast(pa.string()), value_set=pa.array(HELD_OUT))
    kept = every.filter(pc.or_(sealed, pc.invert(held)))
    workspace.mkdir(parents=True, exist_ok=True)
    pq.write_table(kept, file)
    before = _trained(file, workspace / "cold", "multi-similarity", *_ANOTHER_QUESTION)
    pq.write_table(pa.concat_tables([kept, _few(every.filter(pc.and_(held, pc.invert(sealed))))]), file)
    entered = {
        balance: _trained(
            file,
            workspace / "cold",
            "multi-similarity",
            *_ANOTHER_QUESTION,
            "--set",
            f"training.parameters.balance={balance}",
            "--reuse",
            "1",
        )
        for balance in BALANCES
    }
    told, labels = _answers(before), _labels_in(entered[BALANCES[0]])
    asked = np.isin(told["true"], HELD_OUT)
    return {
        "held out": len(HELD_OUT),
        "labels a class": LABELS_A_CLASS,
        "labels in the index": labels,
        "rows": int(asked.sum()),
        "accuracy without labels": _accuracy(before),
        "accuracy with labels": {str(balance): _accuracy(ran) for balance, ran in entered.items()},
        "among the held-out classes only": _few_shot(told["embedding"][asked], told["true"][asked]),
        "recall_at_1 among them": _recall(told["embedding"][asked], told["true"][asked]),
    }


def _accuracy(ran: Ran) -> dict[str, Any]:
    """Of the sealed rows of held-out classes and of the others; and how the run ended."""
    told = _answers(ran)
    right, asked = told["label"] == told["true"], np.isin(told["true"], HELD_OUT)
    return {
        "held out": float(right[asked].mean()),
        "others": float(right[~asked].mean()),
        "by class": {name: float(right[told["true"] == name].mean()) for name in HELD_OUT},
        "verdict": ran.verdict["title"],
        "seconds": round(ran.seconds),
    }


def _few_shot(embedding: Any, labels: Any) -> float:
    """Accuracy of the nearest of a few labelled rows a class, with no other class to choose: what a caller with neighbours of its own gets.

    The labelled ones are drawn from these rows, and the rest is asked; the mean of twenty draws.
    """
    rng, shares = np.random.default_rng(17), []
    for _ in range(20):
        known = np.concatenate([rng.choice(np.flatnonzero(labels == name), LABELS_A_CLASS, replace=False) for name in HELD_OUT])
        rest = np.setdiff1d(np.arange(len(labels)), known)
        nearest = known[(embedding[rest] @ embedding[known].T).argmax(axis=1)]
        shares.append((labels[nearest] == labels[rest]).mean())
    return float(np.mean(shares))


def _few(candidates: pa.Table) -> pa.Table:
    """Of each held-out class some rows, drawn from its newest hundred."""
    rng, parts = np.random.default_rng(17), []
    for name in HELD_OUT:
        mine = candidates.filter(pc.equal(candidates["label"].cast(pa.string()), name)).sort_by("trans_date")
        newest = np.arange(max(0, len(mine) - 100), len(mine))
        parts.append(mine.take(np.sort(rng.choice(newest, LABELS_A_CLASS, replace=False))))
    return pa.concat_tables(parts)


def _labels_in(ran: Ran) -> dict[str, int]:
    """How many labels of each held-out class the index has: some of those that came watch the training instead."""
    labels = ran.learned("train", columns=["category"])["category"]
    counts = {str(item["values"]): int(item["counts"]) for item in pc.value_counts(labels).to_pylist()}
    return {name: counts.get(name, 0) for name in HELD_OUT}


def _recall(embedding: Any, labels: Any) -> float:
    """Share of rows whose nearest other row, among those of held-out classes, is of their class: what the encoder knows of classes it never saw."""
    near = embedding @ embedding.T
    np.fill_diagonal(near, -np.inf)
    return float((labels[near.argmax(axis=1)] == labels).mean())


def _search() -> Mapping[str, Any]:
    """Milliseconds of one query and of 256 through the index layer, median of some, by rows of the index."""
    with project_code(PROJECT):
        import tensorflow as tf

        layer = importlib.import_module("labelled_neighbours").LabelledNeighbours

        found = {}
        for size in INDEX_ROWS:
            rng = np.random.default_rng(17)
            unit = rng.normal(size=(size, 64)).astype(np.float32)
            unit /= np.linalg.norm(unit, axis=1, keepdims=True)
            index = layer(size, 64, 63)
            index.fill(unit, rng.integers(0, 63, size), np.ones(size, np.float32), np.full(size, b""))
            ask = tf.function(lambda queries, index=index: index(queries)["label"])
            found[str(size)] = {"one": _milliseconds(ask, unit[:1]), "many": _milliseconds(ask, unit[:256])}
        return found


def _milliseconds(ask: Any, queries: Any) -> float:
    times = []
    for _ in range(11):
        started = time.perf_counter()
        ask(queries).numpy()
        times.append((time.perf_counter() - started) * 1000)
    return float(np.median(times[1:]))
