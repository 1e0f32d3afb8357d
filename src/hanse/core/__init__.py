"""The concepts that all other packages build on. See `docs/concepts` and the modules' own pages."""
