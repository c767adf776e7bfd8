"""What a model's outputs become on their way to whoever asks."""

from __future__ import annotations

import pytest
import tensorflow as tf

from mlpipelines.errors import ConfigError
from mlpipelines.training.tasks import answers


def test_what_a_model_says_beside_its_score_is_served_under_its_own_name() -> None:
    served = answers("detection", {"score": tf.constant([[0.5], [0.1]]), "reasons": tf.constant([["amount", "hour"], ["", ""]])}, ())
    assert served.keys() == {"score", "reasons"}
    assert served["score"].shape == (2,)
    assert served["reasons"].numpy().tolist() == [[b"amount", b"hour"], [b"", b""]]


def test_an_output_that_is_called_label_and_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="a label is text"):
        answers("detection", {"score": tf.constant([[0.5]]), "label": tf.constant([1])}, ())
