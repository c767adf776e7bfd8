"""A model's tracks on one machine: `millrace serve --tracks` runs a model server for each version and the gateway in front of them.

`announcement` is what it tells others, `children` are its processes, `fleet` decides which there should be (pure), `supervisor` is the loop.
"""
