"""A record read with the versions that it names: its sessions, its check, its export."""
