"""Outside systems as agents: MCP servers, AI models and datastores, under the same identity, policy and encryption."""
