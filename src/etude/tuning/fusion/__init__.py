"""Fused decoder layers (one autograd node each), and attention over packed rows."""
