"""Quantised weights: formats, error bounds, and Linear layers."""
