"""Links boxes of single frames into tubes, online or over a complete video. NumPy only."""
