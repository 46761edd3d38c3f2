"""A net under changes that must move no number: digests and tables of short runs, driven by commands.

    python -m tests.net FOLDER                  run every entry; FOLDER/net.json has their values
    python -m tests.net FOLDER ope "one word"   only the entries whose name has one of these texts
    python -m tests.net compare A.json B.json   list the entries that differ; exit code 1 if there are any

It knows the package by its commands and files, and by nothing else, so that it holds while modules move.
"""
