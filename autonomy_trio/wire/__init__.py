"""Bytes, no I/O: Noise handshakes, sessions, envelopes and relay frames. The fabric carries what comes out of here."""
