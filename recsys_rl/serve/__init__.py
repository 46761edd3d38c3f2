"""A policy behind HTTP: request -> Session -> policy -> items and probability -> the record -> the answer.

app.py has the doors, worker.py the thread that owns the record and the sessions under way, inference.py the
thread that draws, sqlite.py the record. docs/10_serving.md says what is promised.
"""
