#include "mgmt/vmx_file.h"

#include <ctype.h>
#include <errno.h>
#include <iconv.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "util/error.h"
#include "util/util.h"

/* What .encoding may say, and what iconv calls it; NULL: UTF-8 already. All have ASCII as it is in
 * one byte, so that the line with .encoding can be found before it is known. */
static const struct {
    const char *name, *iconv;
} encodings[] = {
    {"UTF-8", NULL},
    {"UTF8", NULL},
    {"US-ASCII", NULL},
    {"ASCII", NULL},
    {"windows-1250", "CP1250"},
    {"windows-1251", "CP1251"},
    {"windows-1252", "CP1252"},
    {"windows-1253", "CP1253"},
    {"windows-1254", "CP1254"},
    {"windows-1257", "CP1257"},
    {"ISO-8859-1", "ISO-8859-1"},
    {"ISO-8859-2", "ISO-8859-2"},
    {"ISO-8859-5", "ISO-8859-5"},
    {"ISO-8859-9", "ISO-8859-9"},
    {"ISO-8859-15", "ISO-8859-15"},
    {"Shift_JIS", "CP932"},
    {"EUC-JP", "EUC-JP"},
    {"EUC-KR", "EUC-KR"},
    {"GBK", "GBK"},
    {"GB18030", "GB18030"},
    {"Big5", "BIG5"},
};

static unsigned line_at(const char *text, const char *at)
{
    unsigned line = 1;
    for (; text < at; text++)
        line += *text == '\n';
    return line;
}

static char *skip_blanks(char *at)
{
    return at + strspn(at, " \t");
}

static bool is_comment(const char *at)
{
    return *at == '#' || (at[0] == '/' && at[1] == '/');
}

static int hex_digit(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

/* "|22" is the byte 0x22. A bar without two digits stands for itself. False: a zero byte. */
static bool undo_escapes(char *value)
{
    char *to = value;
    for (const char *from = value; *from; to++) {
        if (*from == '|' && isxdigit((unsigned char)from[1]) && isxdigit((unsigned char)from[2])) {
            *to = (char)(hex_digit(from[1]) << 4 | hex_digit(from[2]));
            from += 3;
            if (!*to)
                return false;
        } else {
            *to = *from++;
        }
    }
    *to = 0;
    return true;
}

/* Cut one line, without its newline, into key and value. What is wrong with it, or NULL; a line
 * without a key leaves `key` NULL. */
static const char *cut_line(char *line, struct vmx_entry *entry)
{
    char *at = skip_blanks(line);
    entry->key = NULL;
    if (!*at || is_comment(at))
        return NULL;
    char *key = at;
    at += strcspn(at, " \t=\"#");
    char *key_end = at;
    at = skip_blanks(at);
    if (at == key || *at != '=')
        return "want key = \"value\"";
    char *value = skip_blanks(at + 1);
    if (*value == '"') {
        value++;
        at = strchr(value, '"');
        if (!at)
            return "the closing quote is missing";
        *at = 0;
        at = skip_blanks(at + 1);
        if (*at && !is_comment(at))
            return "text after the closing quote; a quote inside of a value is |22";
    } else {
        at = value + strcspn(value, "#");
        while (at > value && (at[-1] == ' ' || at[-1] == '\t'))
            at--;
        *at = 0;
    }
    *key_end = 0;
    if (!undo_escapes(value))
        return "a value has a zero byte";
    entry->key = key;
    entry->value = value;
    return NULL;
}

static int cut_lines(struct vmx_file *file, const char *path, struct tv_error *err)
{
    unsigned number = 1;
    for (char *line = file->text, *next; line; line = next, number++) {
        next = strchr(line, '\n');
        char *end = next ? next : line + strlen(line);
        if (next)
            *next++ = 0;
        if (end > line && end[-1] == '\r')
            end[-1] = 0;
        if (number > VMX_LINES_MAX)
            return tv_fail(err, "%s: more than %d lines; is it a .vmx file?", path, VMX_LINES_MAX);
        struct vmx_entry *entry = &file->entries[file->count];
        const char *wrong = cut_line(line, entry);
        if (wrong)
            return tv_fail(err, "%s:%u: %s", path, number, wrong);
        entry->line = number;
        file->count += entry->key != NULL;
    }
    return 0;
}

/* The value of .encoding in text that is not cut yet: its last line counts. "" where there is none.
 * The line's number goes to `line`. */
static void find_encoding(const char *text, char *name, size_t size, unsigned *line)
{
    static const char key[] = ".encoding";
    *name = 0;
    *line = 0;
    for (const char *at = text; at; at = strchr(at, '\n')) {
        at += strspn(at, " \t\r\n");
        if (strncasecmp(at, key, sizeof key - 1) != 0)
            continue;
        const char *value = at + sizeof key - 1;
        value += strspn(value, " \t");
        if (*value != '=')
            continue;
        value += 1 + strspn(value + 1, " \t");
        value += *value == '"';
        size_t length = MIN(strcspn(value, " \t\r\n\"#"), size - 1);
        memcpy(name, value, length);
        name[length] = 0;
        *line = line_at(text, at);
    }
}

/* Bring file->text into UTF-8. */
static int convert(struct vmx_file *file, const char *path, struct tv_error *err)
{
    char name[32];
    unsigned line;
    find_encoding(file->text, name, sizeof name, &line);
    size_t i = 0;
    while (*name && i < ARRAY_SIZE(encodings) && strcasecmp(name, encodings[i].name) != 0)
        i++;
    if (i == ARRAY_SIZE(encodings))
        return tv_fail(err, "%s:%u: .encoding '%s' is unknown; save the file as UTF-8", path, line,
                       name);
    if (!encodings[i].iconv)
        return 0;
    iconv_t cd = iconv_open("UTF-8", encodings[i].iconv);
    if (cd == (iconv_t)-1)
        return tv_fail(err,
                       "%s:%u: this host cannot convert .encoding '%s'; save the file as UTF-8",
                       path, line, name);
    size_t left = strlen(file->text), room = 4 * left;
    char *from = file->text, *converted = malloc(room + 1), *to = converted;
    if (!converted) {
        iconv_close(cd);
        return tv_fail(err, "%s: out of memory", path);
    }
    int status = 0;
    if (iconv(cd, &from, &left, &to, &room) == (size_t)-1)
        status = tv_fail(err, "%s:%u: the text is not in the .encoding '%s'", path,
                         line_at(file->text, from), name);
    iconv_close(cd);
    *to = 0;
    free(file->text);
    file->text = converted;
    return status;
}

int vmx_file_parse(struct vmx_file *file, const char *path, const char *text, size_t size,
                   struct tv_error *err)
{
    static const char mark[] = "\xef\xbb\xbf";
    *file = (struct vmx_file){0};
    if (size > VMX_FILE_MAX)
        return tv_fail(err, "%s: larger than %d KiB; is it a .vmx file?", path,
                       VMX_FILE_MAX / 1024);
    const char *zero = memchr(text, 0, size);
    if (zero)
        return tv_fail(err, "%s:%u: a zero byte; is it a .vmx file?", path, line_at(text, zero));
    if (size >= 3 && memcmp(text, mark, 3) == 0) {
        text += 3;
        size -= 3;
    }
    file->text = malloc(size + 1);
    file->entries = calloc(VMX_LINES_MAX + 1, sizeof *file->entries);
    if (!file->text || !file->entries)
        return tv_fail(err, "%s: out of memory", path);
    memcpy(file->text, text, size);
    file->text[size] = 0;
    return convert(file, path, err) < 0 ? -1 : cut_lines(file, path, err);
}

void vmx_file_free(struct vmx_file *file)
{
    free(file->text);
    free(file->entries);
    *file = (struct vmx_file){0};
}

const struct vmx_entry *vmx_file_find(const struct vmx_file *file, const char *key)
{
    for (size_t i = file->count; i-- > 0;)
        if (strcasecmp(file->entries[i].key, key) == 0)
            return *file->entries[i].value ? &file->entries[i] : NULL;
    return NULL;
}
