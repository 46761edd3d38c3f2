"""Sources of batches, one file each: rollouts of an environment, a replay buffer, and a log of decisions."""
