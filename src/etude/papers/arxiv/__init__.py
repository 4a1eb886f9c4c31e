"""arXiv clients: RSS and Atom feeds, OAI-PMH and the query API, behind one rate limit."""
