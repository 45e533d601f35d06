"""CPU loops below JAX, compiled by numba where it is installed: what XLA computes badly on a CPU."""
