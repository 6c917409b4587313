/*
 * VMware's .vmx files: the description of a machine, as a configuration of ours. docs/vmx.md tells
 * which keys count.
 */
#ifndef TRIVISOR_MGMT_VMX_H
#define TRIVISOR_MGMT_VMX_H

#include <stddef.h>
#include <trivisor/trivisor.h>

#define VMX_DRIVES_MAX  16
#define VMX_NOTICES_MAX 32

struct vmx;

/* Read a file, or take its text; `path` names it in messages, and file names in it are relative to
 * its directory. NULL with one line in `err`, with the number of the line where there is one. */
struct vmx *vmx_open(const char *path, struct tv_error *err);
struct vmx *vmx_parse(const char *path, const char *text, size_t size, struct tv_error *err);
/* NULL is fine. */
void vmx_close(struct vmx *vmx);

/* The machine. All it points to is the vmx's. What the file says nothing about is zero, and the
 * serial port TV_SERIAL_STDIO. */
const struct tv_config *vmx_config(const struct vmx *vmx);
/* One line for the user about something that is not as the file says; NULL: no more. */
const char *vmx_notice(const struct vmx *vmx, unsigned index);

#endif
