"""What starts a retraining, once, and writes down why, or why not."""
