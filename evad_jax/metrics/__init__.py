"""Figures of merit; NumPy only, so that evaluating a file needs no accelerator."""
