"""The routes of Docker's API, by subject."""
