"""The relay: it lets nodes in, forwards packets, keeps mailboxes and a directory, alone or in a cluster."""
