"""Version of Etude, recorded in runs and adapters."""

__version__ = "0.1.0"
