"""Containers: programs of images, each in a micro VM that goes on from a booted template of Linux."""
