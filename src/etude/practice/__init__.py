"""Coding problems, the judge of submissions, and records of progress."""
