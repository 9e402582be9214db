"""AuthGate Fast: an API gateway with one public URL, routes to backends and a security check between."""

__version__ = "0.1.0"
