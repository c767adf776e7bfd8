"""mlpipelines."""
