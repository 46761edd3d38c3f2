"""The record of a server on the disk: written, read, checked, and exported as a log."""
