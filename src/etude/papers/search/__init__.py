"""Full-text search over the papers: an index in a folder of its own, and a language of queries."""

from etude.core.errors import QueryError
from etude.papers.search.folder import IndexProgress
from etude.papers.search.index import Found, Index

__all__ = ["Found", "Index", "IndexProgress", "QueryError"]
