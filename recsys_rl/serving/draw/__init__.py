"""From a session to its draw: versions that can serve, the context, the rule that chooses, draws again."""
