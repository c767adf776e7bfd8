"""Who did what, when and why: a log to which one can only append, and which shows when somebody changed it all the same."""
