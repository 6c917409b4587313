/*
 * A VNC server (RFB 3.8, RFC 6143) on a display and its input, by way of libvncserver; with `web`,
 * a page with a VNC client in it at the same address.
 *
 * All of it is one thread. It owns libvncserver's state and a copy of the picture, so the library
 * never reads what the guest writes. A viewer that is slow in reading gets fewer pictures and
 * delays nobody. Any number of viewers up to VNC_CLIENTS_MAX share one screen, keyboard and mouse.
 */
#ifndef TRIVISOR_UI_VNC_H
#define TRIVISOR_UI_VNC_H

#include "ui/display.h"
#include "ui/input.h"

#define VNC_CLIENTS_MAX 16
#define VNC_PORT        5900
#define WEB_PORT        5980

struct vnc;

struct vnc_config {
    const char *address;  /* tcp.h; NULL: loopback, first free port */
    bool web;             /* the page and WebSockets instead of plain RFB */
    const char *password; /* up to 8 bytes count; NULL: none */
    bool open_to_all;     /* listen beyond the loopback without a password */
    const char *title;
};

/* `display` and `input` outlive it; `input` is this thread's from now on. NULL with `err` filled.
 */
struct vnc *vnc_open(const struct vnc_config *config, struct display *display, struct input *input,
                     struct tv_error *err);
/* Let the viewers' bells ring. Any thread, any lock held: it returns at once. */
void vnc_bell(struct vnc *vnc);
/* Disconnects everybody. NULL is fine. The device lock is not held. */
void vnc_close(struct vnc *vnc);
/* Where it listens: "127.0.0.1:5900", "http://127.0.0.1:5980/". */
const char *vnc_name(const struct vnc *vnc);

#endif
