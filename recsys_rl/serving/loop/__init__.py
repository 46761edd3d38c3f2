"""Learning from the feedback: retrain, gate, release, and the rounds of all three."""
