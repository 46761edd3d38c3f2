"""The record of a server on the disk: its rows and facts, its writer, its readers."""
