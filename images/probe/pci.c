#include "pci.h"
#include "accesses.h"

#define CONFIG_ADDRESS PCI_CONFIG
#define CONFIG_DATA (PCI_CONFIG + 4)
#define CONFIG_ENABLE 0x80000000u

u32 pci_read(u32 slot, u32 offset)
{
	out32(CONFIG_ADDRESS, CONFIG_ENABLE | slot << 11 | offset);
	return in32(CONFIG_DATA);
}

void pci_write(u32 slot, u32 offset, u32 value)
{
	struct access accesses[] = {
		{ .kind = OUT32, .at = CONFIG_ADDRESS, .value = CONFIG_ENABLE | slot << 11 | offset },
		{ .kind = OUT32, .at = CONFIG_DATA, .value = value },
	};

	do_accesses(accesses, ARRAY_SIZE(accesses));
}

u32 pci_find(u32 id)
{
	u32 slot = 0;

	out32(CONFIG_ADDRESS, CONFIG_ENABLE);
	if (in32(CONFIG_ADDRESS) != CONFIG_ENABLE)
		return PCI_NO_SLOT;
	while (slot < PCI_NO_SLOT && pci_read(slot, PCI_ID) != id)
		slot++;
	return slot;
}
