"""The feature contract: what a feature is, said once, for the rows that are learned from and for those that are scored.

`contract` is the file `feature_views.yaml` as a model, and the moments at which rows are taken. `statement` turns the contract and one moment
into one SELECT that reads nothing that happened, or became known, at that moment or later. The source of kind `feature_views`
(`mlpipelines.ingestion.sources.feature_views`) runs it for each moment of a window: for a training over months, for daily scoring over one day. There is no
second way to compute a feature, so there is nothing that could differ. `feast_repository` writes the same rows for Feast.
"""
