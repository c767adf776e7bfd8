"""From generated images to a served model that is asked about a file, through the commands that a person types."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mlserving.predictions import reading
from mlserving.predictions.records import MOST_VALUE_BYTES, bytes_of
from project_modules import module_of
from typed_commands import millrace, run, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PROJECT = Path(__file__).resolve().parents[2] / "pipelines" / "projects" / "image-content"
SMALL = {
    "source.options": "{rows: 1000, seed: 7, size: 16, broken: 0.005}",
    "training.epochs": "5",
    "training.batch_size": "32",
    "training.parameters": "{image_size: 16, stem: 16, width: 32, layers: 1, heads: 2, crop: 0.9, learning_rate: 0.004}",
}

generator = module_of(PROJECT, "generator")


def photo(generator: ModuleType) -> bytes:
    """An image that no model has seen, of another size and kind than those that it learned from."""
    (batch,) = generator.rows(rows=1, seed=99, size=48)
    to = io.BytesIO()
    Image.open(io.BytesIO(batch["image"][0].as_py())).save(to, "PNG")
    return to.getvalue()


def many(generator: ModuleType) -> list[dict[str, Any]]:
    """Images for a night's batch: some broken, one too large to be logged, one that is none and one that is missing."""
    (batch,) = generator.rows(rows=60, seed=5, size=20, broken=0.1)
    rows = [{"image_id": row["image_id"], "source": row["source"], "image": row["image"]} for row in batch.to_pylist()]
    more = {"large": photo(generator) + bytes(70_000), "text": b"no image", "none": None}
    return rows + [{"image_id": name, "source": "phone", "image": image} for name, image in more.items()]


def answered(address: str, rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the server says of each image alone, by its id; those that it refuses are not there."""
    found = {}
    for row in rows:
        body = json.dumps({"instances": [{"image": {"b64": base64.b64encode(row["image"] or b"").decode()}}]}).encode()
        try:
            with urllib.request.urlopen(f"http://{address}/v1/models/image-content:predict", body, timeout=60) as response:
                (found[row["image_id"]],) = json.load(response)["predictions"]
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
    return found


def test_images_become_a_model_that_is_asked_about_a_file(generator: ModuleType, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    record = run(PROJECT, *(f"--set={name}={value}" for name, value in SMALL.items()), workspace=workspace)
    assert record["status"] == "blessed", record
    (manifest,) = workspace.glob("projects/*/runs/*/artifacts/*/ingest/data/manifest.json")
    told = json.loads(manifest.read_text())
    assert told["dropped"]["image_broken"] > 0
    assert any("hold no image that decodes" in warning for warning in told["warnings"])
    (verdict,) = workspace.glob("projects/*/runs/*/artifacts/*/evaluate/evaluation/verdict.json")
    of_classes = {each["name"]: each for each in json.loads(verdict.read_text())["classes"]}
    assert {"person", "lettering"} <= {name for name, each in of_classes.items() if each["precision"] and each["recall"]}

    files = {"photo.png": photo(generator), "notes.txt": b"no image", "half.png": photo(generator)[:500]}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with served("image-content", workspace, tmp_path / "ready.json") as address:

        def predict(*words: str | Path, code: int = 0) -> tuple[list[dict[str, object]], str]:
            said = millrace("predict", "image-content", "--address", address, "--json", *words, workspace=workspace, code=code)
            return [json.loads(line) for line in said.stdout.splitlines()], said.stderr

        ((answer,), _) = predict(f"image@{tmp_path / 'photo.png'}")
        assert answer["readable"] == 1.0
        scores = answer["scores"]
        assert isinstance(scores, list)
        assert len(scores) == 6
        assert all(0 < score < 1 for score in scores)
        ((nothing,), _) = predict(f"image@{tmp_path / 'notes.txt'}")
        assert nothing == {"readable": 0.0, "scores": [0.0] * 6}
        assert "Invalid PNG data" in predict(f"image@{tmp_path / 'half.png'}", code=2)[1]

        coded = {"image": {"b64": base64.b64encode(files["photo.png"]).decode()}}
        (tmp_path / "rows.jsonl").write_text(f"{json.dumps(coded)}\n{{}}\n")
        ((again, left_out), _) = predict("--file", tmp_path / "rows.jsonl")
        assert again["scores"] == pytest.approx(scores, abs=1e-6)
        assert left_out == nothing
        body = json.dumps({"instances": [coded]}).encode()
        with urllib.request.urlopen(f"http://{address}/v1/models/image-content:predict", body, timeout=60) as response:
            (row,) = json.load(response)["predictions"]
        assert row["scores"] == pytest.approx(scores, abs=1e-6)

        ((why,), _) = predict("--explain", f"image@{tmp_path / 'photo.png'}")
        assert len(set(why["explained_by"])) == len(why["attributions"]) == 64
        assert why["base_score"] + sum(why["attributions"]) == pytest.approx(max(scores), abs=0.01)

        rows = many(generator)
        online = answered(address, rows)
    nightly(rows, online, tmp_path, workspace)


def nightly(rows: list[dict[str, Any]], online: dict[str, dict[str, Any]], folder: Path, workspace: Path) -> None:
    """The same images by `millrace batch`: the answers that were served, and those that the server refuses set aside."""
    pq.write_table(pa.Table.from_pylist(rows), folder / "night.parquet")
    words = ("--input", folder / "night.parquet", "--output", folder / "scores", "--max-rejected", "0.5")
    logging = ("--log-share", "1", "--log-feature", "image")
    told = json.loads(millrace("batch", PROJECT, *words, *logging, "--json", workspace=workspace).stdout)
    assert (told["rows"], told["scored"], told["rejected"]) == (len(rows), len(online), len(rows) - len(online))
    assert 0 < told["rejected"] == sum(told["reasons"].values())
    assert "the model refuses the row: Invalid JPEG data, size …" in told["reasons"]
    scored = pq.read_table(folder / "scores" / "night.parquet", partitioning=None).to_pylist()
    assert [row["image_id"] for row in scored] == list(online)
    for row in scored:
        assert row["output/readable"] == online[row["image_id"]]["readable"]
        assert row["output/scores"] == pytest.approx(online[row["image_id"]]["scores"], abs=1e-5)
    images = {row["image_id"]: row["image"] for row in rows}
    rejected = pq.read_table(folder / "scores" / "_rejected" / "night.parquet", partitioning=None).to_pylist()
    assert {row["image_id"]: row["image"] for row in rejected} == {name: image for name, image in images.items() if name not in online}

    logged = reading.log(workspace / "predictions", "image-content").table(["prediction_id", "feature/image"]).to_pylist()
    kept = {row["prediction_id"]: row["feature/image"] for row in logged}
    for row in scored:
        image, text = images[row["image_id"]] or b"", kept[row["prediction_id"]]
        assert text is None if len(image) > MOST_VALUE_BYTES else bytes_of(text) == image
