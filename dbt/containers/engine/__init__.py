"""The engine: it answers docker's clients. Requests of Docker's API enter by a unix socket; containers, logs and events
leave.

What it remembers is in one directory (:mod:`dbt.containers.engine.places`). The routes of the API are in ``api``, by
subject, and know no more than how a request is read and an answer written.
"""
