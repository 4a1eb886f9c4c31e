"""Papers: what arXiv announced, for this reader."""
