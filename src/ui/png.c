#include "ui/png.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "util/error.h"

#define FILTER_SUB 1
#define RGB_BYTES  3

static void put32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* Length, type, data, and the CRC over type and data. */
static bool write_chunk(FILE *file, const char *type, const uint8_t *data, size_t size)
{
    uint8_t head[8], tail[4];
    put32(head, (uint32_t)size);
    memcpy(head + 4, type, 4);
    uLong crc = crc32(0, head + 4, 4);
    if (size)
        crc = crc32(crc, data, (uInt)size);
    put32(tail, (uint32_t)crc);
    return fwrite(head, 1, sizeof head, file) == sizeof head &&
           fwrite(data, 1, size, file) == size && fwrite(tail, 1, sizeof tail, file) == sizeof tail;
}

/* Each line is its filter's number and the differences from the pixel to the left. */
static void filter_line(uint8_t *to, const uint32_t *pixels, unsigned width)
{
    uint8_t left[RGB_BYTES] = {0};
    *to++ = FILTER_SUB;
    for (unsigned x = 0; x < width; x++) {
        for (int i = 0; i < RGB_BYTES; i++) {
            uint8_t v = (uint8_t)(pixels[x] >> (16 - 8 * i));
            *to++ = (uint8_t)(v - left[i]);
            left[i] = v;
        }
    }
}

/* The compressed image data; NULL when out of memory. */
static uint8_t *compress_image(const uint32_t *pixels, unsigned width, unsigned height,
                               size_t *size)
{
    size_t line = 1 + (size_t)width * RGB_BYTES;
    uint8_t *raw = malloc(line * height);
    uLongf packed_size = compressBound(line * height);
    uint8_t *packed = malloc(packed_size);
    for (unsigned y = 0; raw && y < height; y++)
        filter_line(raw + y * line, pixels + (size_t)y * width, width);
    if (!raw || !packed || compress2(packed, &packed_size, raw, line * height, 6) != Z_OK) {
        free(packed);
        packed = NULL;
    }
    free(raw);
    *size = packed_size;
    return packed;
}

static bool write_image(FILE *file, const uint8_t *packed, size_t size, unsigned width,
                        unsigned height)
{
    static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    uint8_t header[13] = {[8] = 8, [9] = 2}; /* 8 bits a sample, RGB */
    put32(header, width);
    put32(header + 4, height);
    return fwrite(signature, 1, sizeof signature, file) == sizeof signature &&
           write_chunk(file, "IHDR", header, sizeof header) &&
           write_chunk(file, "IDAT", packed, size) && write_chunk(file, "IEND", header, 0);
}

int png_write(const char *path, const uint32_t *pixels, unsigned width, unsigned height,
              struct tv_error *err)
{
    size_t size;
    uint8_t *packed = compress_image(pixels, width, height, &size);
    char *beside = NULL;
    if (!packed || asprintf(&beside, "%s.%ld.part", path, (long)getpid()) < 0) {
        free(packed);
        return tv_fail(err, "screenshot %s: out of memory", path);
    }
    int result = 0, fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!file) {
        result = tv_fail_errno(err, errno, "cannot create the screenshot %s", path);
        if (fd >= 0)
            close(fd);
    } else {
        bool written = write_image(file, packed, size, width, height);
        if ((fclose(file) != 0) | !written || rename(beside, path) < 0)
            result = tv_fail_errno(err, errno, "cannot write the screenshot %s", path);
    }
    if (result < 0 && fd >= 0)
        unlink(beside);
    free(beside);
    free(packed);
    return result;
}
