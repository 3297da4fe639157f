#!/bin/busybox sh
# The first and only program of the guest: it mounts the disk and runs the writer, which says what it has to say on the
# second serial line.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in $($b cat /modules/order); do $b insmod "/modules/$module.ko"; done
$b stty -F /dev/ttyS1 raw
$b mount -t ext4 -o noatime /dev/vda /mnt && echo "mounted, $($b cat /sys/block/vda/queue/write_cache)"
# Its standard input never ends: the power does.
($b cat /task; $b sleep 100000) | /bin/power writer /mnt/store > /dev/ttyS1
echo "the writer has ended"
$b poweroff -f
