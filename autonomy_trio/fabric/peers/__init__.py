"""The other nodes that something is under way with: sessions, what is asked and told, streams, watches, credit."""
