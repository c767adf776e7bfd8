"""What this package adds to the `millrace` command. `millrace --help` loads this module, so the work is imported late."""

from __future__ import annotations


def serve(argv: list[str]) -> int:
    """Answer prediction requests (TF Serving's gRPC and REST) from the model store"""
    from mlserving.server.serve_command import main

    return main(argv)


def predict(argv: list[str]) -> int:
    """Ask a served model for its prediction"""
    from mlserving.client.predict_command import main

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
