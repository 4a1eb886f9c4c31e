"""The reading room's services: open it, collect papers, find and rank them, exchange them."""
