"""The local model server, which answers as TensorFlow Serving does."""
