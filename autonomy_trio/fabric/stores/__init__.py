"""Where envelopes for nodes that are away are kept: SQLite here, Redis for several relays, and how each commits."""
