#include "guest.h"
#include <stdarg.h>

#define COM1       0x3f8
#define DEBUG_EXIT 0xf4

void putchar(char c)
{
    while (!(inb(COM1 + 5) & 0x20))
        continue;
    outb(COM1, (u8)c);
}

void puts(const char *s)
{
    while (*s)
        putchar(*s++);
}

static void put_number(word value, unsigned base, int width, char pad)
{
    char digits[24];
    int n = 0;
    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    while (n < width--)
        putchar(pad);
    while (n)
        putchar(digits[--n]);
}

static void vprintf_(const char *f, va_list ap)
{
    for (; *f; f++) {
        if (*f != '%') {
            putchar(*f);
            continue;
        }
        char pad = *++f == '0' ? '0' : ' ';
        int width = 0;
        while (*f >= '0' && *f <= '9')
            width = width * 10 + *f++ - '0';
        bool is_long = *f == 'l';
        f += is_long;
        switch (*f) {
        case 's':
            puts(va_arg(ap, const char *));
            break;
        case 'c':
            putchar((char)va_arg(ap, int));
            break;
        case 'd': {
            long v = is_long ? va_arg(ap, long) : va_arg(ap, int);
            if (v < 0)
                putchar('-');
            put_number(v < 0 ? -(word)v : (word)v, 10, width, pad);
            break;
        }
        case 'u':
        case 'x':
            put_number(is_long ? va_arg(ap, word) : va_arg(ap, unsigned), *f == 'x' ? 16 : 10,
                       width, pad);
            break;
        default:
            putchar(*f);
        }
    }
}

void printf(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vprintf_(format, ap);
    va_end(ap);
}

void debug_exit(u32 value)
{
    for (;;)
        outl(DEBUG_EXIT, value);
}

void fail(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    puts("FAIL: ");
    vprintf_(format, ap);
    putchar('\n');
    va_end(ap);
    debug_exit(1);
}

bool check(const char *name, bool good)
{
    printf("%s: %s\n", name, good ? "ok" : "WRONG");
    return good;
}

void *memset(void *p, int c, size_t n)
{
    void *start = p;
    asm volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(c) : "memory");
    return start;
}

void *memcpy(void *to, const void *from, size_t n)
{
    void *start = to;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return start;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const u8 *x = a, *y = b;
    for (; n; n--, x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}
