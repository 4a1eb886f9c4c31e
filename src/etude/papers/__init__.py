"""arXiv papers: collected, summarised, searched and ranked."""
