"""Requests over HTTP: host, token, routes, and what they share."""
