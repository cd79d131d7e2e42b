"""Mutation tests: the translator is made wrong on purpose, and the tests must notice. ``make mutants`` runs them.

They are not part of ``make test``, because a mutant names a piece of the source as it stands: whoever changes that
piece changes the mutant too. A mutant that the source has outgrown fails and says so.
"""
