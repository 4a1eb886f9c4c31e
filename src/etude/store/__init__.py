"""Persistent storage: SQLite by default, PostgreSQL by a database URL."""
