// Debian's patch of Lua includes this for a directory of libraries, which a machine without files does not have.
#define DEB_HOST_MULTIARCH "none"
