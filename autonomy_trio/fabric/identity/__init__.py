"""Who speaks: the credentials of a node and its agents, their introductions, and what is known of others' keys."""
