// What libjpeg-turbo's CMakeLists.txt makes of this file, but for the year.
#include "jversion.h.in"
