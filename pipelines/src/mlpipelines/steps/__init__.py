"""The steps: plain functions over paths. They never import kfp."""
