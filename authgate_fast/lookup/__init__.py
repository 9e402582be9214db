"""The IO behind the request path's look-ups: passwords, signing keys, identity providers, browser sessions."""
