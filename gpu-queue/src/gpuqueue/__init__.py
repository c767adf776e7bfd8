"""GPU pods wait in a fair line for their team's quota.

The core is pure (standard library, no clock, no network): `quantities` counts the GPUs of a pod, `queue` says what a line is,
`decide` says who may start. Around it: adapters for Kubernetes, and the controller's loop.
"""
