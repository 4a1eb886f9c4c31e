"""Adapters: small trained updates of frozen weights, their placement and files."""
