/* Drivers that are not in the kernel itself (dbt/linux/debian_kernel.py makes their list). */
#ifndef MODULES_H
#define MODULES_H

/* Load them in the order of their numbers, and remove their files. */
void load_modules(void);

#endif
