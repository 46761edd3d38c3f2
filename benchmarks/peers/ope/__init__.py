"""Other packages for off-policy evaluation, each run by the interpreter of an environment of its own.

A file here imports nothing of ours. It gets a folder of arrays, and prints one line of JSON.
"""
