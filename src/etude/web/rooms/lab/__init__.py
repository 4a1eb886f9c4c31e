"""Lab: runs, and starting them."""
