"""Images made from Dockerfiles, as docker's classic builder makes them.

A context and a Dockerfile enter, images leave, and messages with what is going on. Programs run in VMs of the runtime;
everything else is done by what is known of an image's files, without a guest.
"""
