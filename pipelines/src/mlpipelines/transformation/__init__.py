"""From rows to features with TensorFlow Transform on Beam: what `steps.transform` is made of."""
