"""Real parties over HTTPS: `hanse serve` and `hanse join`."""
