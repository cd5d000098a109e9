"""Boxes of single frames linked into tubes, looking back only or over a whole video. NumPy only."""
