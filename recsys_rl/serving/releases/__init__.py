"""Versions of a policy that share the sessions of a server, and the watch over them."""
