// What cmark's CMakeLists.txt writes.
#define CMARK_VERSION 0
#define CMARK_VERSION_STRING "0"
