"""From features to an exported model: what `steps.train` is made of."""
