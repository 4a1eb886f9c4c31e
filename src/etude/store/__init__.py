"""What is remembered between runs: SQLite by default, PostgreSQL by one address."""
