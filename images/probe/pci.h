/* PCI configuration space, by mechanism 1 (PCI Local Bus Specification 3.0, section 3.2.2.3.2). */
#ifndef PCI_H
#define PCI_H

#include "x86.h"

#define PCI_ID 0x00
#define PCI_COMMAND 0x04
#define PCI_BAR0 0x10
#define PCI_CAPABILITIES 0x34

#define PCI_COMMAND_IO (1u << 0)
#define PCI_COMMAND_MEMORY (1u << 1)
#define PCI_COMMAND_MASTER (1u << 2)
#define PCI_COMMAND_NO_INTX (1u << 10)

#define PCI_NO_SLOT 32

/* The mechanism's ports. */
#define PCI_CONFIG 0xcf8
#define PCI_CONFIG_PORTS 8

/* The slot on bus 0 of the device with this vendor and device ID; PCI_NO_SLOT where there is none. */
u32 pci_find(u32 id);
u32 pci_read(u32 slot, u32 offset);
void pci_write(u32 slot, u32 offset, u32 value);

#endif
