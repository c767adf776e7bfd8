"""The gate for clusters before Kubernetes 1.36, where no policy can change a pod: a webhook that anybody of several replicas answers.

It is a program of its own and not a port of the controller: admission must answer within three seconds, also while a controller is
thinking about ten thousand pods; it needs none of the controller's rights; and the guards keep the controller's from being used here. The story:
`review` says what becomes of a pod, `rotation` which certificate is due, `certificates` brings that about, `main` wires them.
"""
