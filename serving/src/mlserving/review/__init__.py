"""The review queue: people look at a few predictions a day, and what they say becomes labels.

`choose` decides which predictions are worth a look, `fill` asks it and puts them into the `queue`, `page` shows them one at a time to people
whom `access` knows, and `deliver` writes what they said to the labels of the prediction log. `agreement` says what the answers are worth.
"""
