"""Presentation of runs: the terminal view and the report page."""
