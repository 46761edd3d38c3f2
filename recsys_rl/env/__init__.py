"""The world in motion: batches of simulated users."""
