"""Kubernetes, as far as the queue needs it: whom to ask (`access`), how (`api`), what to keep of the answers (`pods`, `gpu_queues`), and how to
stay up to date (`watch`). Raw HTTP and partial structs: a client library's models cost milliseconds and hundreds of kilobytes a pod.
"""
