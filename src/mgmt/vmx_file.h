/* The syntax of a .vmx file: lines of key = "value". */
#ifndef TRIVISOR_MGMT_VMX_FILE_H
#define TRIVISOR_MGMT_VMX_FILE_H

#include <stddef.h>
#include <trivisor/trivisor.h>

#define VMX_FILE_MAX  (256 * 1024)
#define VMX_LINES_MAX 8192

struct vmx_entry {
    const char *key, *value; /* UTF-8, escapes undone; they point into the text */
    unsigned line;
};

struct vmx_file {
    char *text;
    struct vmx_entry *entries;
    size_t count;
};

/* Parse `size` bytes. -1 with a message of the form "PATH:LINE: ..." in `err`; `path` is only for
 * that. Either way vmx_file_free() frees what is in `file`. */
int vmx_file_parse(struct vmx_file *file, const char *path, const char *text, size_t size,
                   struct tv_error *err);
void vmx_file_free(struct vmx_file *file);
/* The last line with this key, in any case of letters; NULL: there is none, or its value is empty.
 */
const struct vmx_entry *vmx_file_find(const struct vmx_file *file, const char *key);

#endif
