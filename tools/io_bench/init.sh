#!/bin/busybox sh
# The first process in the guest: loads the drivers, does the work, and says on the console when each part begins and
# ends.
export PATH=/bin:/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
mkdir -p /share
for module in MODULES; do
  insmod /lib/modules/$module.ko || echo "there is no module $module"
done
begin() { echo "=== BEGIN $1 ==="; }
end() { echo "=== END $1 ==="; }
echo "=== UP ==="
# WORK
poweroff -f
