/* The header of a tar archive's entry, as POSIX has it (pax): 512 bytes. */
#ifndef TAR_H
#define TAR_H

#include <stdint.h>

#define TAR_BLOCK 512

struct tar_header {
    char name[100], mode[8], uid[8], gid[8], size[12], time[12], checksum[8], kind, link[100];
    char magic[8], user[32], group[32], major[8], minor[8], prefix[155], unused[12];
};

enum {
    TAR_FILE = '0', TAR_HARD_LINK, TAR_LINK, TAR_CHARACTER, TAR_BLOCK_DEVICE, TAR_DIRECTORY, TAR_FIFO,
    TAR_EXTENDED = 'x', TAR_GLOBAL = 'g', TAR_LONG_NAME = 'L', TAR_LONG_LINK = 'K',
};

#define TAR_XATTR "SCHILY.xattr."

#endif
