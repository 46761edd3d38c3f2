"""What a log of decisions says: its tables, what may be learned from it, and estimates of policies."""
