"""The daemon of many machines: it keeps their definitions, runs them, and is controlled over a unix socket by HTTP.

``dbt vm`` is its command (:mod:`dbt.cli.vm`). What one request does is in :mod:`dbt.daemon.domains`.
"""
