"""The prediction log: what was asked and answered, and the labels that arrive later."""
