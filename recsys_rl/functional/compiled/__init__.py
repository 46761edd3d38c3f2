"""The C that every agent or every platform uses, and what opens it."""
