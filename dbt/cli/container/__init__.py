"""``dbt container``: the engine that docker's clients speak to, and short commands for who has no docker."""
