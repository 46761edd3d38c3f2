"""Users learned from a log: their network, its fit, and the platform that plays them."""
