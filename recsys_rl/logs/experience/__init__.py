"""Batches from logs of decisions, and the record of the decisions of a run."""
