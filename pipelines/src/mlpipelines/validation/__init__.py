"""What rows look like and whether that is right: what `steps.statistics` and `steps.validate` are made of."""
