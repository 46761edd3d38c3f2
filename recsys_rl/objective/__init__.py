"""From reward streams to the scalar reward of learning."""
