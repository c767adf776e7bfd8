"""`gpuq`: one module for each question that people ask."""
