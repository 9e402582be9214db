"""AuthGate Fast: an API gateway with one public URL, routes to backends and a security check between."""

from importlib.util import find_spec

__version__ = "0.1.0"


def is_compiled() -> bool:
    """Tell whether the request path runs as compiled modules or as plain Python (setup.py); both do the same."""
    spec = find_spec("authgate_fast.plan")
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")
