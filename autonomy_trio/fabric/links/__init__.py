"""Links: bytes messages both ways over websockets, TCP or memory, and the addresses that name their ends."""
