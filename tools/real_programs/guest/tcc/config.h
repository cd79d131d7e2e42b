// What TinyCC's configure writes, for a compiler that makes x86-64 code and has nothing to load.
#define TCC_VERSION "0"
#define TCC_TARGET_X86_64 1
#define CONFIG_TCC_STATIC 1
#define CONFIG_TCC_SEMLOCK 0
#define CONFIG_TCCDIR "."
