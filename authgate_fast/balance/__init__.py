"""Which target of a service a request goes to, and what keeps a service from too many of them. Pure."""
