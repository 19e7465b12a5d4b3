"""Portals: streams of bytes through sessions, from inlets where clients connect to outlets where they leave."""
