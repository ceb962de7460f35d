/*
 * edu (QEMU, docs/specs/edu.rst) sends a message of our choice: its MSI capability is programmed
 * like any function's (PCI Local Bus Specification 3.0, "MSI Capability Structure").
 */
#include "devices.h"
#include "touched.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA 0xcfc
#define CONFIG_ENABLE 0x80000000u
#define CONFIG_SLOTS 32
#define PCI_ID 0x00
#define PCI_COMMAND 0x04
#define PCI_COMMAND_MEMORY_AND_MASTER 6
#define PCI_BAR0 0x10
#define PCI_CAPABILITIES 0x34
#define CAPABILITY_MSI 5
#define MSI_ADDRESS 4
#define MSI_ADDRESS_HIGH 8
#define MSI_DATA 12
#define MSI_ENABLE (1u << 16)

#define EDU_ID 0x11e81234
#define EDU_RAISE 0x60
#define EDU_ACKNOWLEDGE 0x64

static u32 slot, capability, registers;
static u64 address_now;
static u32 data_now;
static bool is_enabled;

static u32 config_read(u32 offset)
{
	out32(CONFIG_ADDRESS, CONFIG_ENABLE | slot << 11 | offset);
	return in32(CONFIG_DATA);
}

static void config_write(u32 offset, u32 value)
{
	out32(CONFIG_ADDRESS, CONFIG_ENABLE | slot << 11 | offset);
	out32(CONFIG_DATA, value);
}

static void enable(bool on)
{
	u32 head = config_read(capability);

	config_write(capability, on ? head | MSI_ENABLE : head & ~MSI_ENABLE);
	is_enabled = on;
}

bool edu_find(void)
{
	out32(CONFIG_ADDRESS, CONFIG_ENABLE);
	if (in32(CONFIG_ADDRESS) != CONFIG_ENABLE)
		return false;
	for (slot = 0; slot < CONFIG_SLOTS; slot++)
		if (config_read(PCI_ID) == EDU_ID)
			break;
	if (slot == CONFIG_SLOTS)
		return false;
	registers = config_read(PCI_BAR0) & ~0xfu;
	config_write(PCI_COMMAND, config_read(PCI_COMMAND) | PCI_COMMAND_MEMORY_AND_MASTER);
	capability = config_read(PCI_CAPABILITIES) & 0xfc;
	while (capability && (config_read(capability) & 0xff) != CAPABILITY_MSI)
		capability = config_read(capability) >> 8 & 0xfc;
	touched.edu = true;
	return capability && registers;
}

void edu_send(u64 address, u32 data)
{
	bool were_on = hold_interrupts();

	if (!registers)
		return;
	touched.edu = true;
	if (!is_enabled || address != address_now || data != data_now) {
		config_write(capability + MSI_ADDRESS, address);
		config_write(capability + MSI_ADDRESS_HIGH, address >> 32);
		config_write(capability + MSI_DATA, data);
		address_now = address;
		data_now = data;
		if (!is_enabled)
			enable(true);
	}
	store32(registers + EDU_RAISE, 1);
	store32(registers + EDU_ACKNOWLEDGE, 1);
	release_interrupts(were_on);
}

void edu_reset(void)
{
	if (touched.edu && registers)
		enable(false);
	touched.edu = false;
}
