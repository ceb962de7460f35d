/*
 * The real-time clock's periodic interrupt, switched by reading two files in sysfs.
 *
 * Linux offers no way to it: it emulates RTC_PIE with a timer since 2.6.38, distribution kernels
 * have no /dev/port, and iopl() is of no use in a nested guest under TCG (QEMU 7.2
 * target/i386/tcg/sysemu/seg_helper.c:helper_check_io wants a TSS marked not busy, KVM loads a busy one).  But the
 * kernel runs ACPI methods: it finds this table in the initial RAM disk (CONFIG_ACPI_TABLE_UPGRADE)
 * and evaluates _SUN and _HRV whenever the device's files "sun" and "hrv" are read.
 *
 * Compiled with "iasl rtc.asl"; rtc.aml is the result.
 */
DefinitionBlock ("rtc.aml", "SSDT", 2, "IRQMTX", "RTC", 1)
{
    Scope (\_SB)
    {
        Device (IRQM)
        {
            Name (_HID, "IRQM0001")

            /* Motorola MC146818 behind its index and data ports. */
            OperationRegion (RTCP, SystemIO, 0x70, 2)
            Field (RTCP, ByteAcc, NoLock, Preserve)
            {
                INDX, 8,
                DATA, 8
            }

            /* Register Arg0.  Linux's handler of IRQ 8 may move the index to register C between two
             * accesses, and C reads 0 the second time: what is read twice is it. */
            Method (GETB, 1, Serialized)
            {
                Local2 = 0
                While (Local2 < 8)
                {
                    INDX = Arg0
                    Local0 = DATA
                    INDX = Arg0
                    Local1 = DATA
                    If (Local0 == Local1)
                    {
                        Return (Local0)
                    }
                    Local2++
                }
                Return (Local0)
            }

            /* Register Arg0: the bits of Arg1 become those of Arg2.  A write may go to register C,
             * which takes none: look, and write again. */
            Method (SETB, 3, Serialized)
            {
                Local1 = 0
                While (Local1 < 8)
                {
                    Local0 = GETB (Arg0)
                    If ((Local0 & Arg1) == Arg2)
                    {
                        Return (One)
                    }
                    INDX = Arg0
                    DATA = (Local0 & ~Arg1) | Arg2
                    Local1++
                }
                Return (Zero)
            }

            /* File "sun": 64 Hz (register A, rate select 10), periodic interrupt on (register B). */
            Method (_SUN, 0, Serialized)
            {
                Return (SETB (0x0A, 0x0F, 0x0A) & SETB (0x0B, 0x40, 0x40))
            }

            /* File "hrv": off, and the rate as firmware leaves it. */
            Method (_HRV, 0, Serialized)
            {
                Return (SETB (0x0B, 0x40, 0x00) & SETB (0x0A, 0x0F, 0x06))
            }
        }
    }
}
