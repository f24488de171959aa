"""inferstack: a self-hosted, durable AI inference system."""

__version__ = "0.1.0"
