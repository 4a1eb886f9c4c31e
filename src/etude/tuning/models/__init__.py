"""Where weights come from, and how they become a model in memory."""
