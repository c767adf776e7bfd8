"""Is a served model still asked what it was trained for, and is it still right? Drift, quality, parity, and alarms as data.

The story: `reference` reads what a version carries of its training, `survey` goes once over the prediction log of a window and counts
(`counting`, `quality`), `drift` and `judging` say what that means, and `command` prints it, writes a page, and hands the numbers to Prometheus.
"""
