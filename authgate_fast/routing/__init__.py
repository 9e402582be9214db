"""Pure: path templates, the request-path policy and the compiled trie."""
