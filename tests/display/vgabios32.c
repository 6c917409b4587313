/*
 * A VGA BIOS (the first Multiboot module) run on the adapter: its initialization, then each mode
 * with text and pixels through INT 10h, and VBE modes with a picture in the linear frame buffer.
 * After each mode it prints "picture NAME" and waits for a byte on COM1, so that somebody can look.
 */
#include "../guest/lib/guest.h"

#define BIOS_AT    0xc0000
#define VBE_BUFFER 0x5000
#define FRAME_AT   0xe0000000
#define OTHER_AT   0xe8000000
#define PORTS_AT   0x1000

struct registers {
    u16 ax, bx, cx, dx, bp, di, es, reserved;
};

extern u8 int10_start[], int10_end[], int10_registers[];
extern u8 init_start[], init_end[];

/* INT 10h with the registers that lie behind it, and their values after it. */
asm(".code16\n"
    "int10_start:\n"
    "  mov $int10_registers - int10_start, %si\n"
    "  mov 2(%si), %bx\n mov 4(%si), %cx\n mov 6(%si), %dx\n"
    "  mov 8(%si), %bp\n mov 10(%si), %di\n mov 12(%si), %es\n mov (%si), %ax\n"
    "  push %ds\n int $0x10\n pop %ds\n"
    "  mov $int10_registers - int10_start, %si\n"
    "  mov %ax, (%si)\n mov %bx, 2(%si)\n mov %cx, 4(%si)\n mov %dx, 6(%si)\n"
    "  lret\n"
    "  .align 4\n"
    "int10_registers: .skip 16\n"
    "int10_end:\n"
    "init_start:\n"
    /* Firmware runs it with data segments of 4 GiB. */
    "  lgdtl %cs:init_gdtr - init_start\n"
    "  mov %cr0, %eax\n or $1, %al\n mov %eax, %cr0\n"
    "  mov $16, %dx\n mov %dx, %ds\n mov %dx, %es\n"
    "  and $0xfe, %al\n mov %eax, %cr0\n"
    "  mov %cs, %dx\n mov %dx, %ds\n mov %dx, %es\n"
    "  push %ds\n mov $0x10, %ax\n lcall $0xc000, $3\n pop %ds\n lret\n" /* AX: device 2, function 0
                                                                          */
    "init_gdtr: .word 64 * 8 - 1\n .long gdt\n"
    "init_end:\n"
    ".code32\n");

static struct registers int10(struct registers r)
{
    memcpy(int10_registers, &r, sizeof r);
    real_call(int10_start, int10_end);
    memcpy(&r, (u8 *)REAL_CODE + (int10_registers - int10_start), sizeof r);
    return r;
}

static u32 config(unsigned reg)
{
    outl(0xcf8, 0x80001000 | reg);
    return inl(0xcfc);
}

static void set_config(unsigned reg, u32 value)
{
    outl(0xcf8, 0x80001000 | reg);
    outl(0xcfc, value);
}

static bool is_svga(void)
{
    return config(0) == 0x040515ad;
}

/* What firmware does before it runs the BIOS. */
static void place(void)
{
    if (is_svga()) {
        set_config(0x10, PORTS_AT);
        set_config(0x14, FRAME_AT);
        set_config(0x18, OTHER_AT);
    } else {
        set_config(0x10, FRAME_AT);
        set_config(0x18, OTHER_AT);
    }
    set_config(0x04, 3);
}

static void show(const char *name, unsigned number)
{
    printf("picture %s%03x\n", name, number);
    while (!(inb(0x3fd) & 1))
        ;
    inb(0x3f8);
}

static void say(const char *text, unsigned colour)
{
    for (; *text; text++)
        int10((struct registers){.ax = 0x0e00 | (u8)*text, .bx = (u16)colour});
}

static void text_mode(unsigned mode)
{
    int10((struct registers){.ax = (u16)mode});
    say("Text through INT 10h\r\n", 7);
    volatile u16 *cell = (volatile u16 *)(mode == 7 ? 0xb0000 : 0xb8000);
    const unsigned columns = mode < 2 ? 40 : 80;
    for (unsigned i = 0; i < 256; i++) {
        cell[columns * (3 + i / 32) + i % 32] = (u16)(i | 0x0700);             /* all characters */
        cell[columns * (12 + i / 32) + i % 32] = (u16)('A' | (i & 0x7f) << 8); /* all colours */
    }
    show("text", mode);
}

static void graphics_mode(unsigned mode, unsigned width, unsigned height, unsigned colours)
{
    int10((struct registers){.ax = (u16)mode});
    say("Graphics through INT 10h", colours - 1 < 15 ? colours - 1 : 15);
    for (unsigned i = 0; i < 100; i++) {
        const u16 x = (u16)(i * (width - 1) / 99), y = (u16)(i * (height - 1) / 99);
        const u16 colour = (u16)(i % (colours - 1) + 1);
        int10((struct registers){.ax = (u16)(0x0c00 | colour), .cx = x, .dx = y});
        int10(
            (struct registers){.ax = (u16)(0x0c00 | colour), .cx = (u16)(width - 1 - x), .dx = y});
    }
    show("graphics", mode);
}

/* A gradient: red to the right, green down, and blue in squares. */
static u32 gradient(unsigned x, unsigned y, unsigned width, unsigned height)
{
    return x * 255 / (width - 1) << 16 | y * 255 / (height - 1) << 8 | ((x ^ y) & 32 ? 160 : 0);
}

static void vbe_mode(unsigned mode)
{
    struct registers r =
        int10((struct registers){.ax = 0x4f01, .cx = (u16)mode, .es = VBE_BUFFER >> 4});
    const u8 *info = (const u8 *)VBE_BUFFER;
    const unsigned width = *(const u16 *)(info + 18), height = *(const u16 *)(info + 20);
    static u8 line[4096] __attribute__((aligned(4)));
    const unsigned bits = info[25], pitch = *(const u16 *)(info + 16);
    u8 *frame = *(u8 *const *)(info + 40);
    printf("vbe %x: %x %ux%ux%u at %x\n", mode, r.ax, width, height, bits, (u32)frame);
    if (r.ax != 0x004f || (u32)frame != FRAME_AT)
        fail("no such mode");
    r = int10((struct registers){.ax = 0x4f02, .bx = (u16)(mode | 0x4000)});
    if (r.ax != 0x004f)
        fail("mode %x not set: %x", mode, r.ax);
    for (unsigned y = 0; y < height; y++) {
        for (unsigned x = 0; x < width; x++) {
            const u32 c = gradient(x, y, width, height);
            const unsigned red = c >> 16, green = c >> 8 & 255, blue = c & 255;
            u8 *at = line + x * ((bits + 7) / 8);
            if (bits == 8)
                *at = (u8)(x * 16 / width * 16 + y * 16 / height);
            else if (bits == 15)
                *(u16 *)at = (u16)((red >> 3) << 10 | (green >> 3) << 5 | blue >> 3);
            else if (bits == 16)
                *(u16 *)at = (u16)((red >> 3) << 11 | (green >> 2) << 5 | blue >> 3);
            else if (bits == 24)
                at[0] = (u8)blue, at[1] = (u8)green, at[2] = (u8)red;
            else
                *(u32 *)at = c;
        }
        const void *from = line;
        void *to = frame + y * pitch;
        u32 words = width * ((bits + 7) / 8) / 4;
        asm volatile("rep movsl" : "+S"(from), "+D"(to), "+c"(words) : : "memory");
    }
    show("vbe", mode);
}

void guest_main(void)
{
    const u32 *info = (const u32 *)boot_info, *module = (const u32 *)info[6];
    if (!(info[0] & 8) || info[5] < 1)
        fail("no module");
    memcpy((void *)BIOS_AT, (const void *)module[0], module[1] - module[0]);
    place();
    memset((void *)0x449, 0, 0x30);
    real_call(init_start, init_end);
    puts("the BIOS is ready\n");

    static const u8 texts[] = {0, 1, 2, 3, 7};
    for (unsigned i = 0; i < ARRAY_SIZE(texts); i++)
        text_mode(texts[i]);
    int10((struct registers){.ax = 3});
    int10((struct registers){.ax = 0x1112}); /* the 8x8 font: 50 lines */
    say("Fifty lines", 7);
    show("lines", 50);

    static const struct {
        u16 mode, width, height, colours;
    } graphics[] = {{4, 320, 200, 4},     {5, 320, 200, 4},     {6, 640, 200, 2},
                    {0x0d, 320, 200, 16}, {0x0e, 640, 200, 16}, {0x0f, 640, 350, 2},
                    {0x10, 640, 350, 16}, {0x11, 640, 480, 2},  {0x12, 640, 480, 16},
                    {0x13, 320, 200, 256}};
    for (unsigned i = 0; i < ARRAY_SIZE(graphics); i++)
        graphics_mode(graphics[i].mode, graphics[i].width, graphics[i].height, graphics[i].colours);

    static const u16 modes[] = {0x101, 0x105, 0x110, 0x111, 0x112, 0x117, 0x118, 0x143};
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++)
        vbe_mode(modes[i]);
    int10((struct registers){.ax = 3});
    say("Back in text mode", 7);
    show("text", 3);
}
