"""The version of dbt, which is written into files. It is that of pyproject.toml."""

VERSION = "0.1.0"
