"""MCP servers as agents, and the bridge that makes one a server again, for clients that know nothing of agents."""
