"""Weights in few bits: formats, their errors, and the Linear that computes with them."""
