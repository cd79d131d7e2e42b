"""Registries of images: pull, push, search and login, by the OCI distribution protocol.

What a registry answers may be a lie. Bodies, counts and times are bounded, every byte is checked against a digest, and
credentials go to the registry that they are for and to the token service that it names, to nobody else.
"""
