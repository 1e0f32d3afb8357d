"""What people touch: runs in Python, settings files, and the command line."""
