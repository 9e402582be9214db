"""Tools for those who work on AuthGate Fast; no part of the package."""
