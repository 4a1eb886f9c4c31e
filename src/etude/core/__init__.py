"""Shared foundations: used by every other package, and importing none of them."""
