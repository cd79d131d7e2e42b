// What libjpeg-turbo's CMakeLists.txt writes, without its code for vector units.
#define JPEG_LIB_VERSION 62
#define LIBJPEG_TURBO_VERSION 0
#define LIBJPEG_TURBO_VERSION_NUMBER 0
#define BITS_IN_JSAMPLE 8
#define PPM_SUPPORTED
