"""Practise: the problems."""
