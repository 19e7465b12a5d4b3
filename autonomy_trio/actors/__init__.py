"""The local runtime: declaration, mailbox, dispatch, refs and supervision; it knows no network and no keys.

Data flows one way: `declare` reads a class once into a `Spec`; a `Runtime` holds one `Cell` for each agent; a `Cell`
takes deliveries from its mailbox, one at a time, and hands each to the handler that the spec names. An `AgentRef`
reaches an agent through a `Route`: the one here ends in this process, the fabric brings those that leave it.
"""
