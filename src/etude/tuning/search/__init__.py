"""Hyper-parameter search: trials over a recipe whose values may be ranges."""
