#include "ui/vnc.h"

#include <errno.h>
#include <poll.h>
#include <rfb/rfb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ui/tcp.h"
#include "ui/web.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/util.h"

#define REFRESH_MS            33  /* while something moves */
#define IDLE_REFRESH_MS       100 /* when nothing has for a second */
#define IDLE_AFTER_MS         1000
#define ECHO_MS               12 /* after a key: the guest's answer */
#define RETRY_INPUT_MS        4
#define CLIENT_WAIT_MS        2000 /* how long one viewer may hold up the thread in a message */
#define MESSAGES_AT_ONCE      64
#define FDS_MAX               (2 + VNC_CLIENTS_MAX + WEB_CONNECTIONS_MAX)
#define PASSWORD_MAX          8

/* QEMU's extended key event: scan codes beside keysyms. */
#define ENCODING_EXTENDED_KEY (-258)
#define MESSAGE_QEMU          255

struct vnc {
    struct display *display;
    struct display_viewer *viewer;
    struct input *input;
    struct tcp_listener listener;
    char name[160], title[128];
    struct web *web; /* NULL: plain RFB */
    rfbScreenInfoPtr screen;
    uint32_t *pixels; /* red in the low byte, as libvncserver has it by nature */
    unsigned width, height;
    char password[PASSWORD_MAX + 1];
    char *passwords[2];
    int wake_fd;
    bool stop, bell;
    pthread_t thread;
    bool started;
    uint64_t next_refresh, last_change; /* ms */
    bool input_waits;
};

/* ---- What viewers do ---- */

/* A person did something: show soon what the guest makes of it. */
static void touched(struct vnc *v)
{
    uint64_t now = host_ms();
    v->last_change = now;
    v->next_refresh = MIN(v->next_refresh, now + ECHO_MS);
}

static void on_key(rfbBool down, rfbKeySym keysym, rfbClientPtr cl)
{
    struct vnc *v = cl->screen->screenData;
    input_keysym(v->input, cl, keysym, down);
    touched(v);
}

static void on_pointer(int buttons, int x, int y, rfbClientPtr cl)
{
    struct vnc *v = cl->screen->screenData;
    input_pointer(v->input, (unsigned)MAX(x, 0), (unsigned)MAX(y, 0), v->width, v->height,
                  (unsigned)buttons);
    rfbDefaultPtrAddEvent(buttons, x, y, cl);
    touched(v);
}

static void on_gone(rfbClientPtr cl)
{
    struct vnc *v = cl->screen->screenData;
    input_leave(v->input, cl);
    /* What libvncserver 0.9.14 forgets to free. */
    free(cl->wsctx);
    cl->wsctx = NULL;
    for (rfbExtensionData *e = cl->extensions, *next; e; e = next) {
        next = e->next;
        free(e);
    }
    cl->extensions = NULL;
}

/* A page of another site must not reach the guest through the user's browser: web.c looks where a
 * WebSocket comes from, so the plain port takes none. */
static enum rfbNewClientAction on_new_client(rfbClientPtr cl)
{
    struct vnc *v = cl->screen->screenData;
    cl->clientGoneHook = on_gone;
    return !v->web && cl->wsctx ? RFB_CLIENT_REFUSE : RFB_CLIENT_ACCEPT;
}

/* ---- Extended key events ---- */

static rfbBool extension_start(rfbClientPtr cl, void **data)
{
    return TRUE;
}

/* Tell the viewer that it is understood: a rectangle of that encoding, with nothing in it. */
static rfbBool extension_enable(rfbClientPtr cl, void **data, int encoding)
{
    static const char update[] = {0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -2, -2};
    if (encoding != ENCODING_EXTENDED_KEY)
        return FALSE;
    return rfbWriteExact(cl, update, sizeof update) > 0;
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static rfbBool extension_message(rfbClientPtr cl, void *data, const rfbClientToServerMsg *message)
{
    struct vnc *v = cl->screen->screenData;
    uint8_t body[11]; /* 0, down (2 bytes), keysym, scan code */
    if (message->type != MESSAGE_QEMU)
        return FALSE;
    if (rfbReadExact(cl, (char *)body, sizeof body) <= 0 || body[0] != 0) {
        rfbCloseClient(cl);
        return TRUE;
    }
    bool down = body[1] || body[2];
    uint32_t keysym = get32(body + 3), code = get32(body + 7);
    if (cl->viewOnly)
        return TRUE;
    if (code == 0xc6) /* how viewers write Pause */
        code = 0xc5;
    if (code & 0x7f && code < 0x100)
        input_scancode(v->input, cl, (uint8_t)code, down);
    else
        input_keysym(v->input, cl, keysym, down);
    touched(v);
    return TRUE;
}

/* libvncserver keeps extensions, and whether it logs, for the whole process. */
static void prepare_library(void)
{
    static int encodings[] = {ENCODING_EXTENDED_KEY, 0};
    static rfbProtocolExtension extension = {
        .newClient = extension_start,
        .pseudoEncodings = encodings,
        .enablePseudoEncoding = extension_enable,
        .handleMessage = extension_message,
    };
    rfbLogEnable(0);
    rfbMaxClientWait = CLIENT_WAIT_MS;
    rfbRegisterProtocolExtension(&extension);
}

/* ---- The picture ---- */

static bool resize(struct vnc *v, unsigned width, unsigned height)
{
    uint32_t *pixels = calloc((size_t)width * height, sizeof *pixels);
    if (!pixels)
        return false;
    rfbNewFramebuffer(v->screen, (char *)pixels, (int)width, (int)height, 8, 3, 4);
    free(v->pixels);
    v->pixels = pixels;
    v->width = width;
    v->height = height;
    return true;
}

static void copy_span(struct vnc *v, const uint32_t *from, unsigned y, unsigned left,
                      unsigned right)
{
    const uint32_t *line = from + (size_t)y * v->width;
    uint32_t *to = v->pixels + (size_t)y * v->width;
    for (unsigned x = left; x < right; x++)
        to[x] = __builtin_bswap32(line[x]) >> 8;
}

static void set_cursor(struct vnc *v, const struct display_cursor *c)
{
    rfbCursorPtr cursor = NULL;
    size_t count = (size_t)c->width * c->height;
    if (count) {
        size_t mask_line = (c->width + 7) / 8;
        cursor = calloc(1, sizeof *cursor);
        uint8_t *mask = calloc(mask_line, c->height), *alpha = malloc(count);
        uint8_t *source = calloc(mask_line, c->height);
        uint32_t *rich = malloc(count * sizeof *rich);
        if (!cursor || !mask || !alpha || !rich || !source) {
            free(cursor);
            free(mask);
            free(source);
            free(alpha);
            free(rich);
            return;
        }
        for (size_t i = 0; i < count; i++) {
            uint32_t pixel = c->pixels[i];
            rich[i] = __builtin_bswap32(pixel) >> 8;
            alpha[i] = (uint8_t)(pixel >> 24);
            if (alpha[i] >= 128)
                mask[i / c->width * mask_line + i % c->width / 8] |=
                    (uint8_t)(0x80 >> i % c->width % 8);
            if ((pixel >> 8 & 0xff) < 128)
                source[i / c->width * mask_line + i % c->width / 8] |=
                    (uint8_t)(0x80 >> i % c->width % 8);
        }
        *cursor = (rfbCursor){.cleanup = TRUE,
                              .cleanupMask = TRUE,
                              .cleanupSource = TRUE,
                              .cleanupRichSource = TRUE,
                              .width = (unsigned short)c->width,
                              .height = (unsigned short)c->height,
                              .xhot = (unsigned short)c->hot_x,
                              .yhot = (unsigned short)c->hot_y,
                              .backRed = 0xffff,
                              .backGreen = 0xffff,
                              .backBlue = 0xffff,
                              .source = source,
                              .mask = mask,
                              .richSource = (unsigned char *)rich,
                              .alphaSource = alpha};
    }
    rfbSetCursor(v->screen, cursor); /* frees the one before */
}

/* Take over what changed. */
static void refresh(struct vnc *v)
{
    struct display_damage damage;
    unsigned width, height;
    display_refresh(v->display);
    display_lock(v->display);
    bool any = display_take_damage(v->display, v->viewer, &damage);
    const uint32_t *pixels = display_pixels(v->display, &width, &height);
    if (any && (width != v->width || height != v->height)) {
        if (!resize(v, width, height))
            any = false;
        damage.resized = true;
    }
    for (unsigned y = 0; any && y < height; y++) {
        unsigned band = y / DISPLAY_BAND;
        copy_span(v, pixels, y, damage.resized ? 0 : damage.left[band],
                  damage.resized ? width : damage.right[band]);
    }
    if (any && damage.cursor)
        set_cursor(v, display_cursor(v->display));
    display_unlock(v->display);
    if (!any)
        return;

    v->last_change = host_ms();
    if (damage.resized)
        rfbMarkRectAsModified(v->screen, 0, 0, (int)width, (int)height);
    else
        for (unsigned band = 0; band * DISPLAY_BAND < height; band++)
            if (damage.left[band] < damage.right[band])
                rfbMarkRectAsModified(v->screen, damage.left[band], (int)band * DISPLAY_BAND,
                                      damage.right[band],
                                      (int)MIN((band + 1) * DISPLAY_BAND, height));
}

/* ---- Connections ---- */

static unsigned client_count(const struct vnc *v)
{
    unsigned count = 0;
    for (rfbClientPtr cl = v->screen->clientHead; cl; cl = cl->next)
        count++;
    return count;
}

/* Takes the descriptor. select() inside the library sets a limit to its number. */
static void add_client(struct vnc *v, int fd)
{
    if (fd >= FD_SETSIZE || client_count(v) >= VNC_CLIENTS_MAX) {
        close(fd);
        return;
    }
    rfbNewClient(v->screen, fd);
    v->next_refresh = 0;
}

static void accept_one(struct vnc *v)
{
    int fd = accept4(v->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (v->web)
        web_add(v->web, fd, host_ms());
    else
        add_client(v, fd);
}

static void read_client(rfbClientPtr cl)
{
    unsigned messages = 0;
    do {
        rfbProcessClientMessage(cl);
    } while (cl->sock >= 0 && ++messages < MESSAGES_AT_ONCE && cl->wsctx &&
             webSocketsHasDataInBuffer(cl));
}

static bool writable(int fd)
{
    struct pollfd p = {fd, POLLOUT, 0};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

static void update_clients(struct vnc *v)
{
    for (rfbClientPtr cl = v->screen->clientHead, next; cl; cl = next) {
        next = cl->next;
        if (cl->sock >= 0 && writable(cl->sock))
            rfbUpdateClient(cl);
        if (cl->sock < 0)
            rfbClientConnectionGone(cl);
    }
}

/* ---- The thread ---- */

static int time_to_wait(const struct vnc *v, uint64_t now)
{
    int wait = v->web ? web_timeout(v->web, now) : -1;
    if (v->input_waits)
        wait = RETRY_INPUT_MS;
    if (v->screen->clientHead) {
        int refresh_in = v->next_refresh > now ? (int)(v->next_refresh - now) : 0;
        wait = wait < 0 ? refresh_in : MIN(wait, refresh_in);
    }
    return wait;
}

static void serve(struct vnc *v)
{
    struct pollfd fds[FDS_MAX] = {{v->wake_fd, POLLIN, 0}, {v->listener.fd, POLLIN, 0}};
    rfbClientPtr clients[VNC_CLIENTS_MAX];
    unsigned count = 2, client_total = 0;
    for (rfbClientPtr cl = v->screen->clientHead; cl && client_total < VNC_CLIENTS_MAX;
         cl = cl->next) {
        clients[client_total++] = cl;
        fds[count++] = (struct pollfd){cl->sock, POLLIN, 0};
    }
    unsigned web_first = count;
    if (v->web)
        count += web_poll(v->web, fds + count);

    int ready = poll(fds, count, time_to_wait(v, host_ms()));
    if (ready < 0)
        return;
    for (unsigned i = 0; i < client_total; i++)
        if (fds[2 + i].revents && clients[i]->sock >= 0)
            read_client(clients[i]);
    if (v->web) {
        int fd;
        while ((fd = web_handle(v->web, fds + web_first, count - web_first, host_ms())) >= 0)
            add_client(v, fd);
    }
    if (fds[1].revents)
        accept_one(v);

    v->input_waits = !input_flush(v->input);
    uint64_t now = host_ms();
    if (v->screen->clientHead && now >= v->next_refresh) {
        refresh(v);
        now = host_ms();
        v->next_refresh =
            now + (now - v->last_change < IDLE_AFTER_MS ? REFRESH_MS : IDLE_REFRESH_MS);
    }
    update_clients(v);
}

static void ring(struct vnc *v)
{
    eventfd_t count;
    if (__atomic_exchange_n(&v->bell, false, __ATOMIC_ACQ_REL)) {
        (void)!eventfd_read(v->wake_fd, &count);
        rfbSendBell(v->screen);
    }
}

void vnc_bell(struct vnc *v)
{
    if (!__atomic_exchange_n(&v->bell, true, __ATOMIC_ACQ_REL))
        (void)!eventfd_write(v->wake_fd, 1);
}

static void *vnc_main(void *opaque)
{
    struct vnc *v = opaque;
    sigset_t all;
    sigfillset(&all); /* SIGPIPE above all: the library writes without MSG_NOSIGNAL */
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    while (!__atomic_load_n(&v->stop, __ATOMIC_ACQUIRE)) {
        serve(v);
        ring(v);
    }
    return NULL;
}

/* ---- Life ---- */

static int create_screen(struct vnc *v, const struct vnc_config *config, struct tv_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare_library);
    v->screen = rfbGetScreen(NULL, NULL, 640, 480, 8, 3, 4);
    if (!v->screen || !resize(v, 640, 480))
        return tv_fail(err, "out of memory");
    snprintf(v->title, sizeof v->title, "%s", config->title ? config->title : "Trivisor");
    rfbScreenInfoPtr s = v->screen;
    s->screenData = v;
    s->desktopName = v->title;
    s->alwaysShared = TRUE;
    s->port = s->ipv6port = 0; /* sockets are ours */
    s->cursor = NULL;
    s->deferUpdateTime = 0;
    s->maxClientWait = CLIENT_WAIT_MS;
    s->kbdAddEvent = on_key;
    s->ptrAddEvent = on_pointer;
    s->newClientHook = on_new_client;
    if (config->password) {
        snprintf(v->password, sizeof v->password, "%.*s", PASSWORD_MAX, config->password);
        v->passwords[0] = v->password;
        s->authPasswdData = v->passwords;
        s->passwordCheck = rfbCheckPasswordByList;
    }
    return 0;
}

static int open_server(struct vnc *v, const struct vnc_config *config, struct tv_error *err)
{
    const char *what = config->web ? "--display web" : "--display vnc";
    v->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (v->wake_fd < 0)
        return tv_fail_errno(err, errno, "%s", what);
    if (tcp_listen(&v->listener, config->address, config->web ? WEB_PORT : VNC_PORT, what, err) < 0)
        return -1;
    if (!v->listener.loopback && !config->password && !config->open_to_all)
        return tv_fail(err,
                       "%s at %s, which other hosts reach, needs a password: use "
                       "--vnc-password FILE, or 'none' to let everybody in",
                       what, v->listener.name);
    snprintf(v->name, sizeof v->name, config->web ? "http://%s/" : "%s", v->listener.name);
    v->viewer = display_viewer_add(v->display);
    if (!v->viewer)
        return tv_fail(err, "%s: too many servers on one display", what);
    if (create_screen(v, config, err) < 0)
        return -1;
    if (config->web && !(v->web = web_create(v->listener.loopback)))
        return tv_fail(err, "out of memory");
    int error = pthread_create(&v->thread, NULL, vnc_main, v);
    if (error)
        return tv_fail_errno(err, error, "cannot create the thread of the VNC server");
    pthread_setname_np(v->thread, "vnc");
    v->started = true;
    return 0;
}

struct vnc *vnc_open(const struct vnc_config *config, struct display *display, struct input *input,
                     struct tv_error *err)
{
    struct vnc *v = calloc(1, sizeof *v);
    if (!v) {
        tv_fail(err, "out of memory");
        return NULL;
    }
    v->display = display;
    v->input = input;
    v->listener.fd = v->wake_fd = -1;
    if (open_server(v, config, err) < 0) {
        vnc_close(v);
        return NULL;
    }
    return v;
}

void vnc_close(struct vnc *v)
{
    if (!v)
        return;
    if (v->started) {
        __atomic_store_n(&v->stop, true, __ATOMIC_RELEASE);
        if (eventfd_write(v->wake_fd, 1) == 0)
            pthread_join(v->thread, NULL);
    }
    if (v->screen) {
        for (rfbClientPtr cl = v->screen->clientHead, next; cl; cl = next) {
            next = cl->next;
            if (cl->sock >= 0)
                rfbCloseClient(cl);
            rfbClientConnectionGone(cl);
        }
        rfbScreenCleanup(v->screen);
    }
    web_destroy(v->web);
    if (v->viewer)
        display_viewer_remove(v->display, v->viewer);
    if (v->listener.fd >= 0)
        close(v->listener.fd);
    if (v->wake_fd >= 0)
        close(v->wake_fd);
    free(v->pixels);
    free(v);
}

const char *vnc_name(const struct vnc *v)
{
    return v->name;
}
