"""Where documents come from (file, Redis) and how they become a snapshot."""
