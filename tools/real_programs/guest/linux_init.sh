#!/bin/busybox sh
# The first process of the part inside Linux: does some work, and resets the board.
export PATH=/bin:/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
cd /bench
echo "=== BEGIN ==="
# WORK
echo "=== END ==="
reboot -f
