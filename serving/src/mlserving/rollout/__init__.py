"""Moving a model's requests from one version to the next, a few percent at a time, and back in seconds.

`plan` is what a person writes and what is remembered, `decide` and `compare` are the judgement (pure), `observe` reads what the gateway counted,
`actions` does what was decided, through a driver: `local` (a file that `millrace serve --tracks` follows) or `helm` (a release's values).
"""
