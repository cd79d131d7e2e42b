# Builds programs in C, which do what their makers and we test them with.
cp -r /work/bzip2 /work/lua5.4 /tmp && cd /tmp/bzip2 || exit 1
make -s CC=gcc bzip2 bzip2recover && make -s test
sha256sum *.o libbz2.a bzip2
cd /tmp/lua5.4/src && rm -f luac.c
gcc -O2 -DLUA_USE_POSIX -o lua *.c -lm && sha256sum lua && ./lua /work/programs.lua 2
