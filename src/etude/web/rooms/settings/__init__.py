"""Settings, and the user's own data."""
