"""How columns are distributed and how far two distributions lie apart: what training judges its data by and the monitor judges traffic by."""
