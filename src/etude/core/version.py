"""The version of Etude, which the package, runs and adapters bear."""

__version__ = "0.1.0"
