"""From a source to sealed, stable splits: what `steps.ingest` is made of."""
