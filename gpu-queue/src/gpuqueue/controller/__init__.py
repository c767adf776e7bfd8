"""The controller: the loop that performs `reconcile` against Kubernetes (`rounds`), what people are told (`telling`), what is kept of the past, and
the wiring that starts it all (`main`).
"""
