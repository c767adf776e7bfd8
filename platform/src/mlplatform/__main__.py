"""`python -m mlplatform` is `millrace`."""

from mlplatform.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
