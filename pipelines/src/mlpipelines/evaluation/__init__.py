"""Who is better, and how sure that is: what `steps.evaluate` is made of."""
