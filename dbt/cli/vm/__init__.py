"""``dbt vm``: the command that controls the daemon, and the daemon's start."""
