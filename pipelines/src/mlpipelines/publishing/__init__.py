"""The registry, and what must hold before a model is published: what `steps.register` and `steps.publish` are made of."""
