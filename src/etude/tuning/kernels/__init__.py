"""Compute kernels: one schema per operation, defined by a reference in plain PyTorch."""
