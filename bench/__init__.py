"""Side-by-side measurements of the gateway, its peers and its own earlier commits; and load for the demo."""
