#!/bin/busybox sh
# The first process of the part inside Linux: does the work that the kernel's command line names, and resets the board.
export PATH=/bin:/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
cd /bench
echo "=== BEGIN ==="
case $workload in
# WORKLOADS
*) echo "there is no workload $workload" ;;
esac
echo "=== END ==="
reboot -f
