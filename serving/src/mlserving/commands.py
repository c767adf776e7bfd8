"""What this package adds to the `millrace` command, and what pods run of it. `millrace --help` loads this module, so the work is imported late.

`pyproject.toml` says which of these people see as `millrace NAME`; `python -m mlserving NAME` runs every one.
"""

from __future__ import annotations


def serve(argv: list[str]) -> int:
    """Answer prediction requests (TF Serving's gRPC and REST) from the model store"""
    from mlserving.server.serve_command import main

    return main(argv)


def predict(argv: list[str]) -> int:
    """Ask a served model for its prediction"""
    from mlserving.client.predict_command import main

    return main(argv)


def gateway(argv: list[str]) -> int:
    """Stand in front of a model's tracks: weights, shadow, versions and ids in every answer, prediction log"""
    from mlserving.gateway.gateway_command import main

    return main(argv)


def rollout(argv: list[str]) -> int:
    """Move a model's requests to another version step by step, and back"""
    from mlserving.rollout.command import main

    return main(argv)


def audit(argv: list[str]) -> int:
    """Read and check the log of who did what to which model"""
    from mlserving.audit.command import main

    return main(argv)


def monitor(argv: list[str]) -> int:
    """Drift, quality and golden-request parity of served models, from the prediction log"""
    from mlserving.monitor.command import main

    return main(argv)


def review(argv: list[str]) -> int:
    """Have people look at a few predictions a day; what they say becomes labels"""
    from mlserving.review.command import main

    return main(argv)


def labels(argv: list[str]) -> int:
    """Add labels of predictions from a file"""
    from mlserving.predictions.labels_command import main

    return main(argv)


def predictions(argv: list[str]) -> int:
    """Erase rows from the prediction log"""
    from mlserving.predictions.predictions_command import main

    return main(argv)


def record(argv: list[str]) -> int:
    """Write what the gateway spooled as Parquet (the gateway starts this)"""
    from mlserving.predictions.record_command import record

    return record(argv)


def compact(argv: list[str]) -> int:
    """Merge the prediction log's small files and delete old days (a CronJob starts this)"""
    from mlserving.predictions.record_command import compact

    return compact(argv)


def fetch(argv: list[str]) -> int:
    """Copy one version of a model from a store, verified: what a pod does before it serves"""
    from mlserving.fetch import main

    return main(argv)


def digest(argv: list[str]) -> int:
    """Print the digest of a version's folder"""
    from mlserving.fetch import digest_main

    return digest_main(argv)


def golden(argv: list[str]) -> int:
    """Ask a version's golden requests of whoever serves it, and compare"""
    from mlserving.client.golden import main

    return main(argv)
