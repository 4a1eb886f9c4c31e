"""Decoder layers computed as one autograd step, and attention over packed rows."""
