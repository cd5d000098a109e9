"""Metrics; NumPy only, so that scoring a file needs no accelerator."""
