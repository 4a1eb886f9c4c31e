"""arXiv as a source: a gate that all requests pass, and a client for each of its interfaces."""
