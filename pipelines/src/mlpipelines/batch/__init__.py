"""Batch scoring: Parquet in, predictions out, each input file exactly once for each version of the model.

`run.py` tells the story from its beginning: find the files (`inputs`), pin the model (`pinned`), score what is not in the output yet
on Beam (`beam_scoring`; `scoring` is the work on one row group, `assembly` makes one output file of its parts), and cut the
ranked rows at what reviewers can look at (`ranking`), or let the project decide on all of them together (`decisions`). `output` says what lies where in the output folder.
"""
