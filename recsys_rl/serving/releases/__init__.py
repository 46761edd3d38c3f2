"""Versions of a policy that share the sessions of a server: their arms, and what their sessions return."""
