/* Which devices a container may use. */
#ifndef DEVICES_H
#define DEVICES_H

#define CONTROL_GROUP "/sys/fs/cgroup/container"

/*
 * Docker's list, as a program of BPF for the container's control group: any device file may be made, and few be opened.
 * It is there from the boot on, because the kernel changes its own code when the first one is attached.
 */
long allow_few_devices(void);
/* Take the program away, for a privileged container. */
long allow_all_devices(void);

#endif
