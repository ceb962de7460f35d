/*
 * edu (QEMU, docs/specs/edu.rst) sends a message of our choice: its MSI capability is programmed
 * like any function's (PCI Local Bus Specification 3.0, "MSI Capability Structure").
 */
#include "accesses.h"
#include "devices.h"
#include "pci.h"
#include "touched.h"

#define CAPABILITY_MSI 5
#define MSI_ADDRESS 4
#define MSI_ADDRESS_HIGH 8
#define MSI_DATA 12
#define MSI_ENABLE (1u << 16)

#define EDU_ID 0x11e81234
#define EDU_RAISE 0x60
#define EDU_ACKNOWLEDGE 0x64

static u32 slot, capability, head, registers;
static u64 address_now;
static u32 data_now;
static bool is_enabled;

static void enable(bool on)
{
	pci_write(slot, capability, on ? head | MSI_ENABLE : head);
	is_enabled = on;
}

bool edu_find(void)
{
	slot = pci_find(EDU_ID);
	if (slot == PCI_NO_SLOT)
		return false;
	registers = pci_read(slot, PCI_BAR0) & ~0xfu;
	pci_write(slot, PCI_COMMAND, pci_read(slot, PCI_COMMAND) | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	capability = pci_read(slot, PCI_CAPABILITIES) & 0xfc;
	while (capability && (pci_read(slot, capability) & 0xff) != CAPABILITY_MSI)
		capability = pci_read(slot, capability) >> 8 & 0xfc;
	head = pci_read(slot, capability) & ~MSI_ENABLE;
	touched.edu = true;
	return capability && registers;
}

void edu_send(u64 address, u32 data)
{
	struct access message[] = {
		{ .kind = STORE32, .at = registers + EDU_RAISE, .value = 1 },
		{ .kind = STORE32, .at = registers + EDU_ACKNOWLEDGE, .value = 1 },
	};
	bool were_on = hold_interrupts();

	if (!registers)
		return;
	touched.edu = true;
	if (!is_enabled || address != address_now || data != data_now) {
		pci_write(slot, capability + MSI_ADDRESS, address);
		if (!is_enabled || address >> 32 != address_now >> 32)
			pci_write(slot, capability + MSI_ADDRESS_HIGH, address >> 32);
		pci_write(slot, capability + MSI_DATA, data);
		address_now = address;
		data_now = data;
		if (!is_enabled)
			enable(true);
	}
	do_accesses(message, ARRAY_SIZE(message));
	release_interrupts(were_on);
}

void edu_replaced(void)
{
	if (!registers)
		return;
	pci_write(slot, PCI_BAR0, registers);
	pci_write(slot, PCI_COMMAND, pci_read(slot, PCI_COMMAND) | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	is_enabled = false;
}

void edu_reset(void)
{
	if (touched.edu && registers)
		enable(false);
	touched.edu = false;
}
