"""``python -m dbt.cli``: the same as the ``dbt`` command."""

from dbt.cli import main

main()
