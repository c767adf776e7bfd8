"""`transform` on real TensorFlow Transform and Beam, a few hundred rows: what the model reads, aligned and exactly as served."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from mlpipelines.artifacts import KEY, LABEL, Data, Transformed
from mlpipelines.errors import ConfigError, DataRejected
from mlpipelines.project import Project
from mlpipelines.project_file import parse_project
from mlpipelines.steps.transform import transform
from mlpipelines.transformation import raw_features
from mlpipelines.workspace import ProjectState

FEATURES = {
    "merchant": "string",
    "amount": "float",
    "count": "integer",
    "time": "timestamp",
    "image": "bytes",
    "tags": "[string]",
    "sizes": "[integer]",
    "weights": "[float]",
}
MANY_ANALYSERS = """
import tensorflow as tf
import tensorflow_transform as tft


def preprocessing_fn(inputs):
    merchant, amount, hours = inputs["merchant"], inputs["amount"], inputs["time"] // 3600
    known = tf.where(tf.math.is_nan(amount), tf.zeros_like(amount), amount)
    words = tft.compute_and_apply_vocabulary(tf.strings.split(merchant).to_sparse(), num_oov_buckets=1, vocab_filename="words")
    grams = tf.strings.ngrams(tf.strings.unicode_split(merchant, "UTF-8"), 3, separator="")
    tags = tft.compute_and_apply_vocabulary(inputs["tags"], default_value=-1, vocab_filename="tags")
    return {
        "amount": tft.scale_to_z_score(known),
        "amount_missing": tf.math.is_nan(amount),
        "bucket": tft.bucketize(known, 8),
        "count": tf.cast(inputs["count"], tf.float64),
        "grams": tf.strings.to_hash_bucket_fast(grams, 512).to_tensor(default_value=-1, shape=[None, 12]),
        "hour": hours % 24,
        "image_size": tf.strings.length(inputs["image"]),
        "merchant": merchant,
        "sizes": tf.reduce_sum(tf.sparse.to_dense(inputs["sizes"]), axis=1),
        "tags": tf.RaggedTensor.from_sparse(tags).to_tensor(default_value=-1, shape=[None, 4]),
        "weight": tf.reduce_sum(tf.sparse.to_dense(inputs["weights"]), axis=1),
        "words": tf.RaggedTensor.from_sparse(words).to_tensor(default_value=-1, shape=[None, 3]),
    }
"""
FEW_ANALYSERS = """
import tensorflow as tf
import tensorflow_transform as tft


def preprocessing_fn(inputs):
    return {
        "merchant": tft.compute_and_apply_vocabulary(inputs["merchant"], vocab_filename="merchant"),
        "count": tft.scale_to_z_score(tf.cast(inputs["count"], tf.float32)),
    }
"""

UNCACHEABLE = """
import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft


class Total(beam.PTransform):
    def expand(self, rows):
        return (rows | beam.Map(lambda row: int(row[0].sum())) | beam.CombineGlobally(sum) | beam.Map(np.int64),)


def preprocessing_fn(inputs):
    (total,) = tft.experimental.ptransform_analyzer([inputs["count"]], Total(), [tf.int64], [[]])
    return {
        "share": tf.cast(inputs["count"], tf.float32) / tf.cast(total, tf.float32),
        "merchant": tft.compute_and_apply_vocabulary(inputs["merchant"]),
    }
"""


def project(features: dict[str, str] | None = None, **label: Any) -> Project:
    values = {
        "name": "shop",
        "team": "money",
        "task": "classification",
        "source": {"kind": "parquet", "path": "rows.parquet"},
        "features": features or FEATURES,
        "context": {"secret": "string"},
        "label": {"column": "category", **label},
    }
    return parse_project(values, origin="test")


def span_rows(seed: int, rows: int) -> pa.Table:
    random = np.random.default_rng(seed)
    shops = ["acme coffee", "book barn", "café zoë", "", "the long tail of names"]

    def some(value: Any) -> Any:
        return None if random.random() < 0.1 else value

    made = [
        {
            "merchant": some(shops[random.integers(len(shops))]),
            "amount": some(float(random.lognormal(3))),
            "count": int(random.integers(9)),
            "time": int(random.integers(1_460_000_000, 1_470_000_000)),
            "image": some(bytes(random.integers(0, 256, random.integers(5), dtype=np.uint8))),
            "tags": some([some(f"t{random.integers(5)}") for _ in range(random.integers(4))]),
            "sizes": some([int(random.integers(9)) for _ in range(random.integers(4))]),
            "weights": some([some(float(random.random())) for _ in range(random.integers(3))]),
            "secret": "do not look",
            "category": some(f"c{random.integers(3)}"),
            KEY: f"{seed}-{row}",
        }
        for row in range(rows)
    ]
    lists = {"tags": pa.list_(pa.string()), "sizes": pa.list_(pa.int64()), "weights": pa.list_(pa.float32())}
    scalars = {"amount": pa.float32(), "count": pa.int64(), "time": pa.int64(), "image": pa.binary()}
    texts = dict.fromkeys(["merchant", "secret", "category", KEY], pa.string())
    return pa.Table.from_pylist(made, pa.schema({**lists, **scalars, **texts}))


def write_data(root: Path, train: dict[str, int], validation: dict[str, int] | None = None, rows: int = 200) -> Data:
    """The layout of `artifacts.Data`: span names with the seed of their content."""
    spans: dict[str, dict[str, Any]] = {"train": {}, "validation": {}}
    for split, contents in (("train", train), ("validation", validation or {"2016-01": 1000})):
        for name, seed in contents.items():
            file = root / split / name / "part-0.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(span_rows(seed, rows), file, row_group_size=max(1, rows // 2 + 7))
            spans[split][name] = {"rows": rows, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (root / "manifest.json").write_text(json.dumps({"spans": spans}))
    return Data(root)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Transformed]:
    """Run `transform` with a given features.py; runs in one test share the workspace, unless they name another."""

    def run_it(data: Data, features: str, made: Project | None = None, state: str = "state", out: str = "out") -> Transformed:
        folder = tmp_path / "project"
        folder.mkdir(exist_ok=True)
        (folder / "features.py").write_text(features)
        target = tmp_path / out
        transform(project=made or project(), project_dir=folder, state=ProjectState(tmp_path / state), data=data.root, transformed=target)
        return Transformed(target)

    return run_it


def read(files: list[Path]) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in files]).sort_by(KEY)


def manifest(done: Transformed) -> Any:
    return json.loads(done.manifest.read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Data, Transformed]:
    """One run over three spans with every kind of feature."""
    root = tmp_path_factory.mktemp("whole")
    data = write_data(root / "data", {"2016-01": 1, "2016-02": 2, "2016-03": 3})
    (root / "project").mkdir()
    (root / "project" / "features.py").write_text(MANY_ANALYSERS)
    target = root / "out"
    transform(project=project(), project_dir=root / "project", state=ProjectState(root / "state"), data=data.root, transformed=target)
    return data, Transformed(target)


def test_every_labelled_row_arrives_once_with_its_key_and_its_class(whole: tuple[Data, Transformed]) -> None:
    data, done = whole
    classes = json.loads(done.classes.read_text())
    assert classes == ["c0", "c1", "c2"]
    for split in ("train", "validation"):
        raw = read(data.files(split))
        raw = raw.filter(raw["category"].is_valid())
        made = read(done.files(split))
        assert made[KEY].equals(raw[KEY])
        assert [classes[place] for place in made[LABEL].to_pylist()] == raw["category"].to_pylist()
        assert made["image_size"].to_pylist() == [len(image or b"") for image in raw["image"].to_pylist()]


def test_beams_output_is_what_the_saved_graph_says_of_a_request_with_the_same_rows(whole: tuple[Data, Transformed]) -> None:
    data, done = whole
    graph = tft.TFTransformOutput(str(done.transform_output))
    raw = pq.read_table(data.files("validation")[0]).combine_chunks().to_batches()[0]
    request = {name: tf.constant(values) for name, values in raw_features.to_tensors(project(), raw).items()}
    for name, spec in raw_features.serving_signature(project()).items():
        assert spec.is_compatible_with(request[name])
    served = graph.transform_raw_features(raw_features.from_request(project(), request))
    labelled = np.asarray(raw["category"].is_valid())
    made = pa.concat_tables([pq.read_table(file) for file in done.files("validation")])
    assert made[KEY].to_pylist() == raw.filter(raw["category"].is_valid())[KEY].to_pylist()
    for name, values in served.items():
        assert made[name].to_pylist() == values.numpy()[labelled].tolist(), name


def test_the_manifest_says_what_the_model_will_read(whole: tuple[Data, Transformed]) -> None:
    data, done = whole
    said = manifest(done)
    assert said["features"]["grams"] == {"dtype": "int64", "shape": [12]}
    assert said["features"]["amount"] == {"dtype": "float32", "shape": []}
    assert said["features"]["count"] == {"dtype": "float32", "shape": []}
    assert said["features"]["merchant"] == {"dtype": "string", "shape": []}
    assert said["vocabularies"]["tags"] == 5
    unlabelled = {split: sum(pq.read_table(file)["category"].null_count for file in data.files(split)) for split in ("train", "validation")}
    assert said["rows"] == {"train": 600 - unlabelled["train"], "validation": 200 - unlabelled["validation"]}
    assert said["without_label"] == unlabelled
    table = pq.read_table(done.files("train")[0])
    assert set(table.column_names) == {*said["features"], KEY, LABEL}
    assert table.schema.field("grams").type == pa.list_(pa.int64(), 12)
    assert not (done.root / ".beam").exists()


def test_only_training_rows_are_analysed(whole: tuple[Data, Transformed]) -> None:
    data, done = whole
    amounts = np.concatenate([np.nan_to_num(pq.read_table(file)["amount"].to_numpy()) for file in data.files("train")])
    made, raw = read(done.files("validation")), read(data.files("validation"))
    raw = np.nan_to_num(raw.filter(raw["category"].is_valid())["amount"].to_numpy())
    np.testing.assert_allclose(made["amount"].to_numpy(), (raw - amounts.mean()) / amounts.std(), rtol=1e-4, atol=1e-5)


def test_features_are_all_that_preprocessing_sees(run: Callable[..., Transformed], tmp_path: Path) -> None:
    peek = 'def preprocessing_fn(inputs):\n    raise ValueError(" ".join(sorted(inputs)))\n'
    with pytest.raises(ConfigError, match=f"ValueError: {' '.join(sorted(FEATURES))}\n"):
        run(write_data(tmp_path / "data", {"2016-01": 1}), peek)


@pytest.mark.slow
def test_a_second_run_analyses_only_the_new_span_and_says_the_same(run: Callable[..., Transformed], tmp_path: Path) -> None:
    run(write_data(tmp_path / "one", {"2016-01": 1, "2016-02": 2}), MANY_ANALYSERS)
    both = write_data(tmp_path / "two", {"2016-01": 1, "2016-02": 2, "2016-03": 3})
    cached = run(both, MANY_ANALYSERS)
    assert manifest(cached)["cache"] == {"hits": ["2016-01", "2016-02"], "misses": ["2016-03"], "read_again": False}
    afresh = run(both, MANY_ANALYSERS, state="empty", out="afresh")
    assert manifest(afresh)["cache"]["hits"] == []
    assert same(cached, afresh)


def same(one: Transformed, other: Transformed) -> bool:
    left, right = read(one.files("train")), read(other.files("train"))
    for name in left.column_names:
        if pa.types.is_floating(left[name].type):
            np.testing.assert_allclose(left[name].to_numpy(), right[name].to_numpy(), rtol=1e-5, atol=1e-6)
        elif name != "bucket":  # quantiles are approximate; merged in another order they may differ by a little
            assert left[name].equals(right[name]), name
    return bool(manifest(one)["vocabularies"] == manifest(other)["vocabularies"])


@pytest.mark.slow
def test_nothing_is_analysed_twice_unless_data_or_code_changed_or_the_cache_is_damaged(
    run: Callable[..., Transformed], tmp_path: Path
) -> None:
    data = write_data(tmp_path / "data", {"2016-01": 1, "2016-02": 2})
    first = read(run(data, FEW_ANALYSERS).files("train"))
    again = run(data, FEW_ANALYSERS)
    assert manifest(again)["cache"] == {"hits": ["2016-01", "2016-02"], "misses": [], "read_again": False}
    assert read(again.files("train")).equals(first)

    for unit in (tmp_path / "state" / "analyzers").rglob("*.unit"):
        unit.write_bytes(unit.read_bytes()[:-3])
    mended = run(data, FEW_ANALYSERS)
    assert manifest(mended)["cache"]["hits"] == []
    assert read(mended.files("train")).equals(first)

    changed = run(write_data(tmp_path / "data", {"2016-01": 1, "2016-02": 7}), FEW_ANALYSERS)
    assert manifest(changed)["cache"] == {"hits": ["2016-01"], "misses": ["2016-02"], "read_again": False}

    edited = run(data, FEW_ANALYSERS + "# another word\n")
    assert manifest(edited)["cache"]["hits"] == []


@pytest.mark.slow
def test_an_analyser_that_cannot_be_cached_reads_every_row_again(run: Callable[..., Transformed], tmp_path: Path) -> None:
    run(write_data(tmp_path / "one", {"2016-01": 1}), UNCACHEABLE)
    data = write_data(tmp_path / "two", {"2016-01": 1, "2016-02": 2})
    done = run(data, UNCACHEABLE)
    assert manifest(done)["cache"] == {"hits": ["2016-01"], "misses": ["2016-02"], "read_again": True}
    total = sum(pq.read_table(file)["count"].to_numpy().sum() for file in data.files("train"))
    made, raw = read(done.files("train")), read(data.files("train"))
    raw = raw.filter(raw["category"].is_valid())
    np.testing.assert_allclose(made["share"].to_numpy(), raw["count"].to_numpy() / total, rtol=1e-6)


def test_without_analysers_and_without_a_label_rows_are_only_mapped(run: Callable[..., Transformed], tmp_path: Path) -> None:
    made = project(use="evaluation").model_copy(update={"task": "detection"})
    data = write_data(tmp_path / "data", {"2016-01": 1})
    done = run(data, "def preprocessing_fn(inputs):\n    return {'twice': inputs['count'] * 2}\n", made)
    table, raw = read(done.files("train")), read(data.files("train"))
    assert table.column_names == ["twice", KEY]
    assert table["twice"].to_pylist() == [2 * count for count in raw["count"].to_pylist()]
    assert json.loads(done.classes.read_text()) == []


def test_a_label_of_many_classes_is_a_list_beside_each_row(run: Callable[..., Transformed], tmp_path: Path) -> None:
    made = project({"count": "integer"}, column="tags", kind="classes").model_copy(update={"task": "multilabel"})
    data = write_data(tmp_path / "data", {"2016-01": 1})
    done = run(data, "def preprocessing_fn(inputs):\n    return {'count': inputs['count']}\n", made)
    classes = json.loads(done.classes.read_text())
    raw = read(data.files("train"))
    wanted = [[tag for tag in tags if tag is not None] for tags in raw["tags"].to_pylist() if tags is not None]
    assert [[classes[place] for place in row] for row in read(done.files("train"))[LABEL].to_pylist()] == wanted


def test_a_run_that_fails_leaves_no_manifest_of_the_one_before(run: Callable[..., Transformed], tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", {"2016-01": 1})
    done = run(data, "def preprocessing_fn(inputs):\n    return {'count': inputs['count']}\n")
    with pytest.raises(ConfigError):
        run(data, "def preprocessing_fn(inputs):\n    return {}\n")
    assert not done.manifest.exists()


def test_what_a_killed_run_left_in_the_output_is_gone(run: Callable[..., Transformed], tmp_path: Path) -> None:
    left = tmp_path / "out" / "train" / "2015-01" / "part-0.parquet"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    done = run(write_data(tmp_path / "data", {"2016-01": 1}), "def preprocessing_fn(inputs):\n    return {'count': inputs['count']}\n")
    assert {file.parent.name for file in done.files("train")} == {"2016-01"}


WRONG = {
    "it raises": ("x = inputs['merchant'] + 1\n    return {'x': x}", r"features\.py: preprocessing_fn fails: [\s\S]*line 7: x = inputs"),
    "an unknown input": ("return {'x': inputs['nobody']}", r"KeyError: 'nobody'"),
    "sparse": ("return {'tags': inputs['tags']}", r"'tags' as a sparse tensor\. Make it dense.*from_sparse"),
    "ragged": ("return {'words': tf.strings.split(inputs['merchant'])}", r"'words' as a ragged tensor.*to_tensor"),
    "no dict": ("return inputs['count']", r"not a dict"),
    "nothing": ("return {}", r"not a dict of at least one tensor"),
    "no tensor": ("return {'x': 3}", r"'x' as int, not a tensor"),
    "unknown width": ("return {'x': tf.sparse.to_dense(inputs['sizes'])}", r"'x' of shape \(None, None\).*ensure_shape"),
    "a scalar": ("return {'x': tf.reduce_sum(inputs['count'])}", r"'x' of shape \(\)"),
    "a name of ours": ("return {'__label': inputs['count']}", r"'__label', which Millrace uses itself"),
    "other rows": ("return {'x': inputs['count'][:1]}", r"input and output batch sizes are different"),
    "fails on rows": (
        "return {'x': tf.strings.to_number(inputs['merchant'])}",
        r"fails on the rows: [\s\S]*StringToNumber[\s\S]*millrace run",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_features_are_explained_with_file_and_reason(case: str, run: Callable[..., Transformed], tmp_path: Path) -> None:
    body, reason = WRONG[case]
    code = f"import tensorflow as tf\nimport tensorflow_transform as tft\n\n\ndef preprocessing_fn(inputs):\n    tft\n    {body}\n"
    with pytest.raises(ConfigError, match=reason) as raised:
        run(write_data(tmp_path / "data", {"2016-01": 1}), code)
    assert "features.py" in str(raised.value)
    assert "while running" not in str(raised.value)
    assert "millrace run" in str(raised.value)


def test_features_without_the_function_or_that_do_not_import_are_explained(run: Callable[..., Transformed], tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", {"2016-01": 1})
    with pytest.raises(ConfigError, match="no function 'preprocessing_fn'"):
        run(data, "preprocess = None\n")
    with pytest.raises(ConfigError, match="fails on import"):
        run(data, "import nothing_of_that_name\n")


def test_data_that_breaks_its_promise_is_refused_by_column_or_file(run: Callable[..., Transformed], tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", {"2016-01": 1})
    simple = "def preprocessing_fn(inputs):\n    return {'count': inputs['count']}\n"
    (file,) = data.files("train")
    rows = pq.read_table(file)
    holes = pa.array([None] * len(rows), pa.int64())
    pq.write_table(rows.set_column(rows.schema.get_field_index("count"), "count", holes), file)
    with pytest.raises(DataRejected, match=r"'count' has .* missing values") as raised:
        run(data, simple)
    assert "while running" not in str(raised.value)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(DataRejected, match=r"part-0\.parquet cannot be read as Parquet"):
        run(data, simple)


def test_an_unknown_option_of_beam_is_refused_by_name(run: Callable[..., Transformed], tmp_path: Path) -> None:
    made = Project.model_validate({**project().model_dump(exclude_defaults=True), "beam": {"options": {"direct_num_wrokers": 2}}})
    with pytest.raises(ConfigError, match=r"beam\.options\.direct_num_wrokers"):
        run(write_data(tmp_path / "data", {"2016-01": 1}), FEW_ANALYSERS, made)
