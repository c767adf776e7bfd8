"""Asking a model server: the messages, the two protocols, and the command around them."""
