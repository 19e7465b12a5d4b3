"""Joins the rooms: links, the relay, and the node, which puts policy between the wire and its agents.

Bytes come in one way: a `Link` carries websocket messages, an `Attachment` is a node's place at one relay,
`Sessions` drives the sessions that run through it, `Admission` judges each message before it can reach a mailbox, and
the `Node` is what users hold.
"""
