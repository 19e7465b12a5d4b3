"""Every number of the wire with its unit: what version 1 fixes for all who speak it, then what a node may tune."""

from typing import Final

VERSION: Final = 0x01
SUITE: Final = 0x01
"""25519, ChaChaPoly and BLAKE2s. A suite is never chosen by retrying."""
PROLOGUE: Final = b"autonomy/1\x00"

XX1: Final = 0x01
XX2: Final = 0x02
XX3: Final = 0x03
DATA: Final = 0x30
SEALED: Final = 0x40
REJECT: Final = 0x50
"""Types of packets."""

INITIATOR: Final = 0x01
RESPONDER: Final = 0x02
"""Roles in a handshake, and directions in the session it makes: that of the role that sends."""

KEY_BYTES: Final = 32
"""Every public key, secret key, identifier, hash and nonce of a relay."""
SIGNATURE_BYTES: Final = 64
TAG_BYTES: Final = 16
"""What the AEAD adds."""
BOOT_BYTES: Final = 16
MESSAGE_ID_BYTES: Final = 16
"""Names one sealed envelope of its sender."""
HANDSHAKE_HEADER_BYTES: Final = 12
DATA_HEADER_BYTES: Final = 16
SEALED_HEADER_BYTES: Final = 12
LEAST_PLAINTEXT_BYTES: Final = 64

PACKET_BYTES: Final = 160 * 1024
HANDSHAKE_BYTES: Final = 32 * 1024
MESSAGE_BYTES: Final = 128 * 1024
"""One message that travels alone: its entry, payload and names together."""
BATCH_BYTES: Final = 64 * 1024
"""More than one message in an envelope."""
BATCH_ENTRIES: Final = 256
BODY_ENTRIES: Final = 2 * BATCH_ENTRIES + 1
"""A full batch, and what rides ahead of it: presentations, and an introduction for each message."""
BUNDLE_BYTES: Final = 8 * 1024
PRESENTATIONS: Final = 16
PRESENTATIONS_BYTES: Final = 23 * 1024
"""All presentations together: with the largest bundle they fit a handshake, with the largest message a packet."""
INTRODUCTIONS: Final = 1024
"""Agents of a peer that a session knows by an index; the one not heard of for longest gives way."""
INTRODUCTIONS_BYTES: Final = 1024 * 1024
"""What is kept of one peer's agents, their credentials together."""
AWAITED: Final = 1024
"""Asks in one word about which are still open."""
NAME_CHARACTERS: Final = 255
"""An agent's name, a message's wire name."""
CODE_CHARACTERS: Final = 64
TEXT_CHARACTERS: Final = 1024
"""The text of an error or of a close."""
LARGEST_INDEX: Final = 2**32 - 1
LARGEST_NUMBER: Final = 2**63 - 1
"""Request numbers, times, milliseconds: what msgpack, Python and everyone's signed 64 bits agree on."""

WINDOW_COUNTERS: Final = 8192
"""How far behind the highest counter a packet may come."""
SESSION_PACKET_BITS: Final = 32
"""The low bits of a counter number the packets of a session; the high ones, the sender's sessions since its boot."""
LARGEST_COUNTER: Final = 2**64 - 2
"""Noise keeps the last nonce for itself (section 5.1)."""

RELAY_MESSAGE_BYTES: Final = 256 * 1024
"""One websocket message between a node and a relay."""
RELAY_ISSUERS: Final = 64
LONGEST_TIME_TO_LIVE: Final = 0xFFFF
"""Seconds a relay may hold a packet of a session."""

SEALED_LIFE: Final = 7 * 24 * 3600
"""Most seconds from the making of a sealed envelope to its end."""
CLOCK_LEEWAY: Final = 60
"""Seconds by which the clock of whoever dated something may run ahead; there is no leeway on an end."""
SEALED_PER_SENDER: Final = 100_000
"""Sealed envelopes of one sender that are remembered until they expire; past them none is acknowledged."""
SEALED_REMEMBERED: Final = 400_000
"""Sealed envelopes of all senders that are remembered."""
UNACKNOWLEDGED: Final = 256
"""Sealed envelopes that a relay hands a node before it waits for an ACK; most ids in an ACK."""

RECORD_LIFE: Final = 3600
"""Most seconds a record of the directory is valid."""
RECORD_BYTES: Final = 24 * 1024
"""A record without its node's bundle and credentials."""
RECORD_AGENTS: Final = 64
RECORD_MESSAGES: Final = 64
RECORD_RELAYS: Final = 8
RECORDS: Final = 64
"""Records in one answer of the directory, which together fit a websocket message."""

REGISTER_WITHIN: Final = 5
"""Seconds a node has to register with a relay."""
PING_AFTER: Final = 10
"""Seconds of silence on a link after which either end pings."""
LINK_GONE_AFTER: Final = 25
"""Seconds of silence on a link after which either end gives it up."""

PENDING_HANDSHAKES: Final = 256
"""Strangers' handshakes that wait for their last message."""
PENDING_PER_PATH: Final = 4
HANDSHAKE_LIFE: Final = 5.0
"""Seconds, for either side of a handshake."""
HANDSHAKE_REPEAT: Final = 1.0
"""Seconds between repeats of an unanswered handshake message."""
HANDSHAKE_SPACING: Final = 10.0
"""Least seconds between handshakes that a node starts with one peer of its own accord."""
CONFIRM_SPACING: Final = 0.5
"""Least seconds between answers to a repeated last handshake message."""

SESSION_LIFE: Final = 180.0
SENDING_LIFE: Final = 175.0
"""Seconds a session is sent on: what is sent last must still be opened when it arrives."""
INITIATOR_RENEWS: Final = 120.0
RESPONDER_RENEWS: Final = 150.0
KEEPALIVE_AFTER: Final = 5.0
"""Seconds of saying nothing while something is owed."""
HANDSHAKE_AFTER: Final = 15.0
"""Seconds of hearing nothing: while something is owed, or before a message is to be sent."""
GONE_AFTER: Final = 28.0

WINDOW_BYTES: Final = 256 * 1024
"""Messages to one agent that one node may have under way before it has heard a word about them."""
PEER_WINDOW_BYTES: Final = 16 * 1024 * 1024
"""The same to all agents of a node."""
MESSAGE_OVERHEAD: Final = 208
"""What a message takes of a window beside its entry, so that small ones are bounded too: 1,024 of the smallest."""
FLOW_BITS: Final = 32
"""The low bits of a message's number count the messages of a flow; the high ones, the sender's flows since its boot."""

PORTAL_WINDOW: Final = 256 * 1024
"""Bytes of one direction of a portal's stream that may be under way, or wait for their reader, at first."""
MOST_PORTAL_WINDOW: Final = 2 * 1024 * 1024
"""The same where the reader keeps up."""

CHECKS_PER_SECOND: Final = 100.0
"""Signatures of agents that are checked for one peer, over time: a hundredth of a processor's."""
CHECKS_BURST: Final = 1024.0
CHECKS_PER_INTRODUCTION: Final = 2
"""Its change and its delegate."""

SESSIONS_PER_PEER: Final = 4
PEERS: Final = 65_536
"""Peers with a session or a handshake; strangers past it are refused."""
CLOCK_TOLERANCE: Final = 60
"""Seconds by which clocks may differ before it is worth saying."""
