"""The asyncio protocols of the request path."""
