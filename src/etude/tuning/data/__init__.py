"""From files, hub data sets and package sources to packed batches of tokens."""
