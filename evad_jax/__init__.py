"""Efficient video action detection: EVAD (ICCV 2023, arXiv 2304.08451) in JAX and Flax."""
