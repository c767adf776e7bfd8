"""What a person types: one module for each `millrace` sub-command, each with a `main(argv) -> exit code`.

These are shells: they read arguments, call the packages below, and print. Nothing here imports TensorFlow, Beam or MLflow
before the work needs it, so `--help` answers at once.
"""
