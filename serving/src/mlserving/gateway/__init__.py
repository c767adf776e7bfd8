"""The proxy in front of a model's tracks: it decides who answers, passes bytes on, and keeps a share of what was said."""
