"""Which papers a reader wants to see first, and why."""
