"""Build the site: ``python -m docs.site`` (``make site``). Nothing that it writes is committed."""
