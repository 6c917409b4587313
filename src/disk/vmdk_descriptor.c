/* The descriptor: lines of key=value, and a list of extents. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "disk/vmdk.h"
#include "util/error.h"
#include "util/util.h"

#define EXTENTS_MAX 4096

struct parser {
    const char *path;
    uint64_t base;
    struct vmdk_descriptor *d;
    bool has_cid, has_type;
    struct tv_error *err;
};

static int bad(const struct parser *p, const char *at, const char *what)
{
    return tv_fail(p->err, "%s: offset %" PRIu64 ": VMDK descriptor: %s", p->path,
                   p->base + (uint64_t)(at - p->d->text), what);
}

/* The value of a line `key = "value"` or `key=value`, if it is that key's. */
static const char *value_of(const char *line, const char *end, const char *key, size_t *length)
{
    size_t n = strlen(key);
    if ((size_t)(end - line) <= n || strncasecmp(line, key, n) != 0)
        return NULL;
    line += n;
    while (line < end && (*line == ' ' || *line == '\t'))
        line++;
    if (line == end || *line++ != '=')
        return NULL;
    while (line < end && (*line == ' ' || *line == '\t'))
        line++;
    while (end > line && isspace((unsigned char)end[-1]))
        end--;
    if (end - line >= 2 && *line == '"' && end[-1] == '"') {
        line++;
        end--;
    }
    *length = (size_t)(end - line);
    return line;
}

static bool take_hex(const char *at, size_t length, uint32_t *value)
{
    char digits[9] = {0}, *stop;
    if (!length || length > 8 || !isxdigit((unsigned char)*at))
        return false;
    memcpy(digits, at, length);
    *value = (uint32_t)strtoul(digits, &stop, 16);
    return !*stop;
}

static void take_text(char *out, size_t size, const char *at, size_t length)
{
    length = MIN(length, size - 1);
    memcpy(out, at, length);
    out[length] = 0;
}

/* The next word of a line; its length, 0 at the end. */
static size_t word(const char **at, const char *end)
{
    while (*at < end && isspace((unsigned char)**at))
        (*at)++;
    const char *w = *at;
    while (w < end && !isspace((unsigned char)*w))
        w++;
    return (size_t)(w - *at);
}

static int take_number(const char **at, const char *end, uint64_t *value)
{
    size_t n = word(at, end);
    *value = 0;
    if (!n || n > 18)
        return -1;
    for (; n; n--, (*at)++) {
        if (!isdigit((unsigned char)**at))
            return -1;
        *value = *value * 10 + (uint64_t)(**at - '0');
    }
    return 0;
}

static int extent_line(struct parser *p, const char *line, const char *end)
{
    struct vmdk_descriptor *d = p->d;
    if (d->line_count == EXTENTS_MAX)
        return bad(p, line, "too many extents");
    struct vmdk_extent_line *grown = realloc(d->lines, (d->line_count + 1) * sizeof *d->lines);
    if (!grown)
        return bad(p, line, "out of memory");
    d->lines = grown;
    struct vmdk_extent_line *e = &d->lines[d->line_count];
    *e = (struct vmdk_extent_line){0};
    const char *at = line;
    size_t n = word(&at, end);
    take_text(e->access, sizeof e->access, at, n);
    at += n;
    if (take_number(&at, end, &e->sectors) != 0 || !e->sectors || e->sectors >> 53)
        return bad(p, at, "an extent's size is not a number of sectors");
    n = word(&at, end);
    take_text(e->type, sizeof e->type, at, n);
    at += n;
    if (!n)
        return bad(p, at, "an extent has no type");
    d->line_count++;
    if (!strcmp(e->type, "ZERO"))
        return 0;
    word(&at, end);
    const char *close = at < end && *at == '"' ? memchr(at + 1, '"', (size_t)(end - at - 1)) : NULL;
    if (!close || close == at + 1)
        return bad(p, at, "an extent has no file name");
    for (const char *c = at + 1; c < close; c++) {
        if ((unsigned char)*c < ' ') /* it would be printed */
            return bad(p, c, "a control character in a file name");
    }
    e->file = strndup(at + 1, (size_t)(close - at - 1));
    if (!e->file)
        return bad(p, at, "out of memory");
    at = close + 1;
    if (word(&at, end) && (take_number(&at, end, &e->offset) != 0 || e->offset >> 53))
        return bad(p, at, "an extent's offset is not a number of sectors");
    return 0;
}

static int line_read(struct parser *p, const char *line, const char *end)
{
    struct vmdk_descriptor *d = p->d;
    size_t n;
    const char *v;
    while (line < end && isspace((unsigned char)*line))
        line++;
    if (line == end || *line == '#')
        return 0;
    if (!strncmp(line, "RW ", 3) || !strncmp(line, "RDONLY ", 7) || !strncmp(line, "NOACCESS ", 9))
        return extent_line(p, line, end);
    if ((v = value_of(line, end, "CID", &n))) {
        if (!take_hex(v, n, &d->cid))
            return bad(p, v, "CID is not a hexadecimal number of 32 bits");
        d->cid_at = (size_t)(v - d->text);
        d->cid_digits = (unsigned)n;
        p->has_cid = true;
    } else if ((v = value_of(line, end, "parentCID", &n))) {
        if (!take_hex(v, n, &d->parent_cid))
            return bad(p, v, "parentCID is not a hexadecimal number of 32 bits");
    } else if ((v = value_of(line, end, "version", &n))) {
        if (n != 1 || *v < '1' || *v > '4')
            return bad(p, v, "a version that is not known; 1 to 4 are");
        d->version = (uint32_t)(*v - '0');
    } else if ((v = value_of(line, end, "createType", &n))) {
        take_text(d->create_type, sizeof d->create_type, v, n);
        p->has_type = true;
    } else if ((v = value_of(line, end, "ddb.adapterType", &n))) {
        take_text(d->adapter, sizeof d->adapter, v, n);
    } else if ((v = value_of(line, end, "parentFileNameHint", &n))) {
        if (!n)
            return bad(p, v, "parentFileNameHint is empty");
        free(d->parent_hint);
        if (!(d->parent_hint = strndup(v, n)))
            return bad(p, v, "out of memory");
    }
    return 0;
}

int vmdk_descriptor_parse(struct vmdk_descriptor *d, char *text, const char *path, uint64_t base,
                          struct tv_error *err)
{
    *d = (struct vmdk_descriptor){.text = text, .version = 1, .parent_cid = VMDK_NO_CID};
    struct parser p = {.path = path, .base = base, .d = d, .err = err};
    for (const char *line = text; *line;) {
        const char *end = strchrnul(line, '\n');
        if (line_read(&p, line, end) != 0) {
            vmdk_descriptor_free(d);
            return -1;
        }
        line = *end ? end + 1 : end;
    }
    const char *missing = !p.has_cid       ? "no CID"
                          : !p.has_type    ? "no createType"
                          : !d->line_count ? "no extent"
                                           : NULL;
    if (!missing && d->parent_cid != VMDK_NO_CID && !d->parent_hint)
        missing = "a parentCID but no parentFileNameHint";
    if (!missing)
        return 0;
    bad(&p, text, missing);
    vmdk_descriptor_free(d);
    return -1;
}

void vmdk_descriptor_free(struct vmdk_descriptor *d)
{
    for (unsigned i = 0; i < d->line_count; i++)
        free(d->lines[i].file);
    free(d->lines);
    free(d->parent_hint);
    free(d->text);
    *d = (struct vmdk_descriptor){0};
}

char *vmdk_descriptor_set(const char *text, const char *key, const char *value)
{
    size_t size = strlen(text) + strlen(key) + (value ? strlen(value) : 0) + 16, at = 0, n;
    char *out = malloc(size);
    bool done = !value;
    if (!out)
        return NULL;
    for (const char *line = text; *line;) {
        const char *end = strchrnul(line, '\n');
        size_t whole = (size_t)(end - line) + (*end != 0);
        if (value_of(line, end, key, &n)) {
            if (!done)
                at += (size_t)sprintf(out + at, "%s=%s\n", key, value);
            done = true;
        } else {
            memcpy(out + at, line, whole);
            at += whole;
            /* parentCID is in every descriptor, so what is missing has a place after it. */
            if (!done && value_of(line, end, "createType", &n) &&
                !strcmp(key, "parentFileNameHint") && !strcasestr(end, "\nparentFileNameHint")) {
                at += (size_t)sprintf(out + at, "%s=%s\n", key, value);
                done = true;
            }
        }
        line += whole;
    }
    out[at] = 0;
    return out;
}

uint32_t vmdk_new_cid(void)
{
    uint32_t cid;
    do {
        if (getrandom(&cid, sizeof cid, 0) != sizeof cid)
            cid = 0;
    } while (cid >= 0xfffffffe || cid == 0);
    return cid;
}
