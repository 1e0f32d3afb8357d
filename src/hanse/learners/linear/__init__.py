"""Linear models and their kin, in NumPy: exact, tiny, and started at once."""
