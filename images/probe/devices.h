/*
 * What drives lines and sends messages: pc-testdev, virtio-serial and edu, and the chips PIC, PIT,
 * HPET and RTC.
 */
#ifndef DEVICES_H
#define DEVICES_H

#include "cpu.h"

/* pc-testdev: any of the 16 ISA lines to any level. */
#define RTC_GSI 8
bool lines_find(void);
void lines_drive(u32 gsi, bool level);
/* Something drives that line, or may. */
void lines_note(u32 gsi);
void lines_reset(void);

/* Its firmware starts from the beginning after an INIT, whatever the CMOS says. */
extern bool is_microvm;
/* virtio-serial: the 24 lines of microvm's second IOAPIC, from GSI 24 on. */
#define VIRTIO_LINES 24
bool virtio_lines_find(void);
void virtio_lines_drive(u32 number, bool level);
void virtio_lines_reset(void);

/* edu: a PCI function that sends its MSI when told. */
bool edu_find(void);
void edu_send(u64 address, u32 data);
void edu_reset(void);
/* It is another one, as after power-on: QEMU does not save its state (hw/misc/edu.c). */
void edu_replaced(void);

/* The two 8259A. */
bool pic_find(void);
void pic_reset(void);
/* Logs what is not as a reset leaves it. */
void pic_prove(void);

/* The 8254: channel 0 still, its output low. */
bool pit_find(void);
void pit_reset(void);

/* The HPET, and the real-time clock. */
#define HPET_BASE 0xfed00000u
#define HPET_BYTES 0x400u
bool hpet_find(void);
void hpet_reset(void);
bool rtc_find(void);
void rtc_reset(void);

/* A port access of the program: which of these does it concern? */
void devices_note_port(u16 port);
/* A port of none of these, or of the RTC: it may drive the RTC's line. */
bool devices_is_other(u16 port);
/* A device that nobody knows here may drive a line. */
void devices_note_other(void);
/* Have the next reset look at everything. */
void devices_distrust(void);

#endif
