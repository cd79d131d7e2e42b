/* Files and file systems that a request makes. All return 0 or more, or an error number. */
#ifndef FILES_H
#define FILES_H

#include <stdint.h>

long make_directories(char *path);
long write_file(const char *path, uint32_t mode, const uint8_t *content, uint32_t size);
long make_node(const char *path, uint32_t mode, uint32_t device);
/* Mount; the four texts are one behind the other. */
long mount_at(uint32_t flags, char *source);
/* Let a file be seen at another path, which becomes a file if there is nothing. */
long bind_file(const char *file, const char *path);
/* Likewise, and directories above the path are made. A file that is there stays as it is. */
long bind_at(const char *file, char *path);
/* Let what is at a path look empty, or be read-only. It is no failure if there is nothing. */
long hide_path(const char *path);
long freeze_path(const char *path);
long add_partition(const char *disk, uint64_t first, uint64_t size, uint32_t number);
/* Wait until a disk has so many bytes. The host fills an empty one and tells the kernel, which notes it at its leisure. */
long await_disk(const char *disk, uint64_t size);
long pivot_root(const char *root, int *old_root);
long detach_root(int *old_root);

#endif
