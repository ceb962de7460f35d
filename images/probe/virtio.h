/* A port of virtio-serial, for output: a whole text leaves with one access. */
#ifndef VIRTIO_H
#define VIRTIO_H

#include "x86.h"

/* False where there is none. */
bool virtio_port_find(void);
/* Returns when the device has taken all of it. */
void virtio_port_write(const void *text, u32 bytes);

#endif
