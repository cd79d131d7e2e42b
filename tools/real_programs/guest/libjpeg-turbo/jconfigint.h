// What libjpeg-turbo's CMakeLists.txt writes.
#define BUILD "0"
#define INLINE inline
#define THREAD_LOCAL
#define PACKAGE_NAME "libjpeg-turbo"
#define VERSION "0"
#define SIZEOF_SIZE_T 4
#define FALLTHROUGH
