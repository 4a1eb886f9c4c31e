"""Read: arXiv's papers, collected, summarised, searchable and ranked."""
