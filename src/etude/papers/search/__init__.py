"""Full-text search over the papers: index, query language, and related papers."""

from etude.core.errors import QueryError
from etude.papers.search.folder import IndexProgress
from etude.papers.search.index import Found, Index

__all__ = ["Found", "Index", "IndexProgress", "QueryError"]
