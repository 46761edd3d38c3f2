"""A policy behind HTTP: request -> session -> draw -> decision in the record -> answer.

routes.py has the table of routes, worker.py the thread that owns the record and the sessions under way,
recommendations.py the way of one request, draw_request.py the draws, active_version.py the version that
answers, record_schema.py the rows of the record, facts.py its facts. docs/10_serving.md has the promises.
"""
