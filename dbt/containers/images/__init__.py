"""Images: their store, layers as file systems, archives, and registries.

Tar archives enter, from registries, files and builds. EROFS images leave, which a guest mounts, and a view of the files
of an image for who has no guest. Everything that enters is checked, because anybody may have made it.
"""
