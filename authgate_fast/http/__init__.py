"""Pure: heads, framing, forwarding fields and problem responses of HTTP/1.1."""
