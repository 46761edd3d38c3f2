"""Sources of batches: rollouts of an environment, later replay and logs."""
