"""Who is it, what can it prove, may it: identities, the vault, credentials, trust anchors and policies.

Nothing here does I/O but the vault with its files, and nothing reads a clock: `now` is an argument, Unix seconds.
"""
