/* The setup header of the Linux/x86 boot protocol (Documentation/arch/x86/boot.rst in Linux). */
#ifndef TRIVISOR_BOOT_LINUX_HEADER_H
#define TRIVISOR_BOOT_LINUX_HEADER_H

/* Setup header, by offset in the file and in boot_params alike. */
enum {
    HDR_START = 0x1f1,
    HDR_SETUP_SECTS = 0x1f1,
    HDR_SYSSIZE = 0x1f4,
    HDR_VID_MODE = 0x1fa,
    HDR_BOOT_FLAG = 0x1fe,
    HDR_JUMP = 0x200,
    HDR_MAGIC = 0x202,
    HDR_VERSION = 0x206,
    HDR_TYPE_OF_LOADER = 0x210,
    HDR_LOADFLAGS = 0x211,
    HDR_CODE32_START = 0x214,
    HDR_RAMDISK_IMAGE = 0x218,
    HDR_RAMDISK_SIZE = 0x21c,
    HDR_HEAP_END = 0x224,
    HDR_CMDLINE = 0x228,
    HDR_INITRD_MAX = 0x22c,
    HDR_ALIGNMENT = 0x230,
    HDR_RELOCATABLE = 0x234,
    HDR_XLOADFLAGS = 0x236,
    HDR_CMDLINE_SIZE = 0x238,
    HDR_PREF_ADDRESS = 0x258,
    HDR_INIT_SIZE = 0x260,
    HDR_FIXED_END = 0x264,
};

#define LOADED_HIGH        0x01 /* of loadflags */
#define CAN_USE_HEAP       0x80
#define INITRD_MAX_DEFAULT 0x37ffffffu /* before protocol 2.03 */

#endif
