/* The MC146818 real-time clock with 128 bytes of CMOS memory, ports 0x70 and 0x71. */
#ifndef TRIVISOR_DEV_RTC_H
#define TRIVISOR_DEV_RTC_H

#include "dev/device.h"

struct rtc;

/* `low_ram` and `high_ram`: bytes of RAM below and above 4 GiB, for the CMOS's memory sizes. */
struct rtc *rtc_create(struct device_env *env, struct irq_line irq8, uint64_t low_ram,
                       uint64_t high_ram);
/* Set a byte of CMOS memory (index 0x0e..0x7f) as firmware set-up would; it survives resets. */
void rtc_set_cmos(struct rtc *rtc, unsigned index, uint8_t value);
/* `alarm` is called, with the device lock held, when an alarm that the guest has enabled is due. */
void rtc_on_alarm(struct rtc *rtc, void (*alarm)(void *opaque), void *opaque);
/* Has the guest set the NMI mask (port 0x70 bit 7)? */
bool rtc_nmi_masked(const struct rtc *rtc);

#endif
