"""The words that everything else is said in. See `docs/concepts`, and the modules' own pages."""
