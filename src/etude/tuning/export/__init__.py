"""What was tuned, in the formats of the programs that run it."""
