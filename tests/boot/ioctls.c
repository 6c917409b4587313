/*
 * What shell scripts cannot ask the kernel's drivers: runs in a guest, statically linked.
 *
 *   ioctls cdrom DEVICE status|changed|eject|close|lock|unlock
 *   ioctls floppy DEVICE              flags of the drive
 *   ioctls rtc update COUNT | periodic HZ COUNT | alarm SECONDS
 *   ioctls speaker HZ                 the tone on, what ports 61 and 42 say, the tone off
 *   ioctls serial DEVICE              kind of chip, lines in loopback
 *   ioctls echo DEVICE COUNT          "ready", then COUNT bytes back to where they come from
 *
 * Prints one line; status 1 and what failed where a call failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/cdrom.h>
#include <linux/fd.h>
#include <linux/kd.h>
#include <linux/rtc.h>
#include <linux/serial.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* TIOCM_OUT1, OUT2 and LOOP of <asm/termios.h>, which <termios.h> excludes. */
enum { MODEM_OUT1 = 0x2000, MODEM_OUT2 = 0x4000, MODEM_LOOP = 0x8000 };

static int fail(const char *what)
{
    printf("%s: %s\n", what, strerror(errno));
    return 1;
}

/* ---- CD-ROM and floppy ---- */

static const char *const drive_states[] = {
    [CDS_NO_INFO] = "no information",    [CDS_NO_DISC] = "no disc", [CDS_TRAY_OPEN] = "tray open",
    [CDS_DRIVE_NOT_READY] = "not ready", [CDS_DISC_OK] = "disc",
};

static int cdrom(int argc, char **argv)
{
    static const struct {
        const char *name;
        unsigned long request;
        int arg;
    } requests[] = {
        {"status", CDROM_DRIVE_STATUS, CDSL_CURRENT},
        {"changed", CDROM_MEDIA_CHANGED, CDSL_CURRENT},
        {"eject", CDROMEJECT, 0},
        {"close", CDROMCLOSETRAY, 0},
        {"lock", CDROM_LOCKDOOR, 1},
        {"unlock", CDROM_LOCKDOOR, 0},
    };
    int fd = open(argv[0], O_RDONLY | O_NONBLOCK);
    if (fd < 0 || argc < 2)
        return fail(argv[0]);
    for (unsigned i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        if (strcmp(argv[1], requests[i].name) != 0)
            continue;
        int result = ioctl(fd, requests[i].request, requests[i].arg);
        if (result < 0)
            return fail(argv[1]);
        if (i == 0)
            puts(drive_states[result]);
        else
            printf("%d\n", result);
        return 0;
    }
    return fail("usage");
}

static int floppy(int argc, char **argv)
{
    static const struct {
        unsigned flag;
        const char *name;
    } names[] = {{FD_VERIFY_BIT, "verify"},
                 {FD_NEED_TWADDLE_BIT, "twaddle"},
                 {FD_DISK_NEWCHANGE_BIT, "newchange"},
                 {FD_DISK_CHANGED_BIT, "changed"},
                 {FD_DISK_WRITABLE_BIT, "writable"}};
    struct floppy_drive_struct drive;
    int fd = open(argv[0], O_RDONLY | O_NONBLOCK);
    if (fd < 0 || ioctl(fd, FDPOLLDRVSTAT, &drive) < 0)
        return fail(argv[0]);
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        if (drive.flags >> names[i].flag & 1)
            printf("%s ", names[i].name);
    printf("track %d\n", drive.track);
    return 0;
}

/* ---- The clock ---- */

static int rtc_interrupts(int fd, int count)
{
    unsigned long word, kinds = 0;
    int got = 0;
    while (got < count) {
        if (read(fd, &word, sizeof word) != sizeof word)
            return fail("read");
        got += (int)(word >> 8);
        kinds |= word & (RTC_PF | RTC_AF | RTC_UF);
    }
    printf("%s\n", kinds == RTC_PF   ? "periodic"
                   : kinds == RTC_AF ? "alarm"
                   : kinds == RTC_UF ? "update"
                                     : "mixed");
    return 0;
}

static int rtc(int argc, char **argv)
{
    int fd = open("/dev/rtc0", O_RDONLY);
    if (fd < 0 || argc < 2)
        return fail("/dev/rtc0");
    if (strcmp(argv[0], "update") == 0) {
        if (ioctl(fd, RTC_UIE_ON, 0) < 0 || rtc_interrupts(fd, atoi(argv[1])))
            return fail("RTC_UIE_ON");
        return ioctl(fd, RTC_UIE_OFF, 0) < 0 ? fail("RTC_UIE_OFF") : 0;
    }
    if (strcmp(argv[0], "periodic") == 0) {
        if (ioctl(fd, RTC_IRQP_SET, atol(argv[1])) < 0)
            return fail("RTC_IRQP_SET");
        if (ioctl(fd, RTC_PIE_ON, 0) < 0 || rtc_interrupts(fd, atoi(argv[2])))
            return fail("RTC_PIE_ON");
        return ioctl(fd, RTC_PIE_OFF, 0) < 0 ? fail("RTC_PIE_OFF") : 0;
    }
    struct rtc_time now;
    struct rtc_wkalrm alarm = {.enabled = 1};
    if (ioctl(fd, RTC_RD_TIME, &now) < 0)
        return fail("RTC_RD_TIME");
    struct tm tm = {.tm_sec = now.tm_sec + atoi(argv[1]),
                    .tm_min = now.tm_min,
                    .tm_hour = now.tm_hour,
                    .tm_mday = now.tm_mday,
                    .tm_mon = now.tm_mon,
                    .tm_year = now.tm_year};
    time_t at = timegm(&tm);
    gmtime_r(&at, &tm);
    alarm.time = (struct rtc_time){.tm_sec = tm.tm_sec,
                                   .tm_min = tm.tm_min,
                                   .tm_hour = tm.tm_hour,
                                   .tm_mday = tm.tm_mday,
                                   .tm_mon = tm.tm_mon,
                                   .tm_year = tm.tm_year};
    if (ioctl(fd, RTC_WKALM_SET, &alarm) < 0)
        return fail("RTC_WKALM_SET");
    return rtc_interrupts(fd, 1);
}

/* ---- The speaker ---- */

static int speaker(int argc, char **argv)
{
    int fd = open("/dev/tty0", O_RDWR);
    if (fd < 0 || ioperm(0x42, 0x20, 1) < 0)
        return fail("/dev/tty0");
    unsigned count = 1193182u / (unsigned)atoi(argv[0]), highest = 0, levels = 0;
    if (ioctl(fd, KDMKTONE, 5000 << 16 | (int)count) < 0)
        return fail("KDMKTONE");
    usleep(50000); /* the driver writes from a timer */
    unsigned on = inb(0x61) & 3;
    for (int i = 0; i < 20000; i++) {
        outb(0x80, 0x43); /* latch counter 2 */
        unsigned value = inb(0x42);
        value |= (unsigned)inb(0x42) << 8;
        highest = value > highest ? value : highest;
        levels |= 1u << (inb(0x61) >> 5 & 1);
    }
    if (ioctl(fd, KDMKTONE, 0) < 0)
        return fail("KDMKTONE");
    usleep(50000);
    printf("%s, %s, %s, %s\n", on == 3 ? "on" : "not on",
           highest <= count && highest > count / 2 ? "counts from what was set" : "counts wrongly",
           levels == 3 ? "both levels" : "one level", inb(0x61) & 3 ? "not off" : "off");
    return 0;
}

/* ---- Serial ports ---- */

static int open_raw(const char *path)
{
    struct termios t;
    int fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || tcgetattr(fd, &t) < 0)
        return -1;
    cfmakeraw(&t);
    t.c_cflag |= CLOCAL | CREAD;
    t.c_iflag |= PARMRK | INPCK;
    cfsetspeed(&t, B115200);
    t.c_cc[VMIN] = 0;
    t.c_cc[VTIME] = 20;
    if (tcsetattr(fd, TCSANOW, &t) < 0 || fcntl(fd, F_SETFL, 0) < 0)
        return -1;
    return fd;
}

static const char *lines(int fd)
{
    static char text[32];
    int bits = 0;
    ioctl(fd, TIOCMGET, &bits);
    snprintf(text, sizeof text, "%s%s%s%s", bits & TIOCM_CTS ? "CTS" : "",
             bits & TIOCM_DSR ? "DSR" : "", bits & TIOCM_CAR ? "CD" : "",
             bits & TIOCM_RI ? "RI" : "");
    return text;
}

/* In loopback a PC's port has no interrupt, so no more than its lines can be seen with the driver.
 */
static int serial(int argc, char **argv)
{
    struct serial_struct s;
    int fd = open_raw(argv[0]), loop = MODEM_LOOP,
        all = TIOCM_RTS | TIOCM_DTR | MODEM_OUT1 | MODEM_OUT2;
    if (fd < 0 || ioctl(fd, TIOCSERCONFIG, 0) < 0 || ioctl(fd, TIOCGSERIAL, &s) < 0)
        return fail(argv[0]);
    close(fd); /* which had been shut down for the driver's look at the chip */
    if ((fd = open_raw(argv[0])) < 0)
        return fail(argv[0]);
    printf("%s", s.type == PORT_16550A ? "16550A" : "another chip");
    if (ioctl(fd, TIOCMBIC, &all) < 0 || ioctl(fd, TIOCMBIS, &loop) < 0)
        return fail("TIOCMBIS");
    for (unsigned i = 0; i < 4; i++) {
        int line = (const int[]){TIOCM_RTS, TIOCM_DTR, MODEM_OUT1, MODEM_OUT2}[i];
        ioctl(fd, TIOCMBIS, &line);
        printf(", %s", lines(fd));
        ioctl(fd, TIOCMBIC, &line);
    }
    ioctl(fd, TIOCMBIC, &loop);
    printf(", %s\n", lines(fd));
    return ioctl(fd, TIOCSBRK, 0) < 0 || ioctl(fd, TIOCCBRK, 0) < 0 ? fail("TIOCSBRK") : 0;
}

static int echo(int argc, char **argv)
{
    int fd = open_raw(argv[0]);
    long left = argc > 1 ? atol(argv[1]) : 0;
    struct termios t;
    if (fd < 0 || tcgetattr(fd, &t) < 0)
        return fail(argv[0]);
    t.c_cflag |= CRTSCTS;
    t.c_iflag &= (tcflag_t) ~(PARMRK | INPCK);
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    if (tcsetattr(fd, TCSANOW, &t) < 0)
        return fail("tcsetattr");
    if (write(fd, "ready\n", 6) != 6)
        return fail("write");
    while (left > 0) {
        char data[4096];
        ssize_t n = read(fd, data, sizeof data);
        if (n <= 0)
            return fail("read");
        for (ssize_t at = 0, wrote; at < n; at += wrote)
            if ((wrote = write(fd, data + at, (size_t)(n - at))) <= 0)
                return fail("write");
        left -= n;
    }
    return tcdrain(fd) < 0 ? fail("tcdrain") : 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } commands[] = {{"cdrom", cdrom},     {"floppy", floppy}, {"rtc", rtc},
                    {"speaker", speaker}, {"serial", serial}, {"echo", echo}};
    for (unsigned i = 0; argc > 2 && i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 2, argv + 2);
    printf("usage: see the top of ioctls.c\n");
    return 2;
}
