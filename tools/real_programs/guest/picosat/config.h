// What PicoSAT's mkconfig.sh writes.
#define PICOSAT_CC "arm-none-eabi-gcc"
#define PICOSAT_CFLAGS "-O2"
#define PICOSAT_VERSION "965"
