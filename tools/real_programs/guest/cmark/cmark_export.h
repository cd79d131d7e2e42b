// What cmark's CMakeLists.txt writes.
#define CMARK_EXPORT
#define CMARK_NO_EXPORT
