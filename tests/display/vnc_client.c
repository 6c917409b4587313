/*
 * A VNC viewer for tests, on libvncclient: it connects, types and points as it is told, and saves
 * what it saw.
 *
 *   vnc_client HOST PORT COMMAND...
 *     password=TEXT     for the login
 *     type=TEXT         type it, a newline as \n
 *     paste=TEXT        the same without a pause between the keys
 *     key=NAME[+NAME]   press keys together: ctrl, alt, shift, del, f1 .. f12, a character
 *     move=X,Y          move the pointer; click=X,Y  press and release the left button there
 *     point=X,Y,BUTTONS  the pointer there with RFB's mask of buttons: 8 and 16 turn the wheel
 *     wait=SECONDS      take updates for so long
 *     size=WxH          take updates until the screen has that size (20 s at most)
 *     save=FILE.png     what is seen now
 *     count             print how many updates and pixels came since the start
 *
 * Commands are done in their order. Exit status 0: all were.
 */
#include <rfb/rfbclient.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ui/png.h"

#define PATIENCE_S 20
#define KEY_GAP_US 12000

static const char *password;
static unsigned long updates, pixels_seen;

static char *give_password(rfbClient *client)
{
    (void)client;
    return strdup(password ? password : "");
}

static void on_update(rfbClient *client, int x, int y, int w, int h)
{
    (void)client, (void)x, (void)y;
    updates++;
    pixels_seen += (unsigned long)w * (unsigned long)h;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Take what the server sends for some time. */
static bool listen_for(rfbClient *client, double seconds)
{
    double end = now() + seconds;
    do {
        double left = end - now();
        int got = WaitForMessage(client, left > 0 ? (unsigned)(left * 1e6) : 0);
        if (got < 0 || (got > 0 && !HandleRFBServerMessage(client)))
            return false;
    } while (now() < end);
    return true;
}

static bool press(rfbClient *client, uint32_t keysym, unsigned gap_us)
{
    bool sent = SendKeyEvent(client, keysym, TRUE);
    usleep(gap_us);
    sent = sent && SendKeyEvent(client, keysym, FALSE);
    usleep(gap_us);
    return sent;
}

static bool type(rfbClient *client, const char *text, unsigned gap_us)
{
    for (; *text; text++) {
        uint32_t keysym = (unsigned char)*text;
        if (text[0] == '\\' && text[1] == 'n') {
            keysym = XK_Return;
            text++;
        }
        if (!press(client, keysym, gap_us))
            return false;
    }
    return listen_for(client, 0.1);
}

static uint32_t keysym_of(const char *name)
{
    static const struct {
        const char *name;
        uint32_t keysym;
    } names[] = {{"ctrl", XK_Control_L}, {"alt", XK_Alt_L},  {"shift", XK_Shift_L},
                 {"del", XK_Delete},     {"esc", XK_Escape}, {"enter", XK_Return},
                 {"up", XK_Up},          {"down", XK_Down},  {"tab", XK_Tab}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i].name) == 0)
            return names[i].keysym;
    if (name[0] == 'f' && name[1])
        return XK_F1 + (uint32_t)atoi(name + 1) - 1;
    return (unsigned char)name[0];
}

static bool chord(rfbClient *client, char *names)
{
    uint32_t keys[8];
    int count = 0;
    for (char *name = strtok(names, "+"); name && count < 8; name = strtok(NULL, "+"))
        keys[count++] = keysym_of(name);
    bool sent = true;
    for (int i = 0; i < count; i++)
        sent = sent && SendKeyEvent(client, keys[i], TRUE);
    usleep(KEY_GAP_US);
    for (int i = count; i-- > 0;)
        sent = sent && SendKeyEvent(client, keys[i], FALSE);
    return sent && listen_for(client, 0.1);
}

static bool wait_for_size(rfbClient *client, int width, int height)
{
    double end = now() + PATIENCE_S;
    while (client->width != width || client->height != height)
        if (now() > end || !listen_for(client, 0.1))
            return false;
    return true;
}

static bool save(const rfbClient *client, const char *path)
{
    size_t count = (size_t)client->width * (size_t)client->height;
    uint32_t *pixels = malloc(count * sizeof *pixels);
    struct tv_error err = {""};
    const uint32_t *from = (const uint32_t *)(const void *)client->frameBuffer;
    for (size_t i = 0; i < count; i++) /* red comes in the low byte */
        pixels[i] = __builtin_bswap32(from[i]) >> 8;
    int result = png_write(path, pixels, (unsigned)client->width, (unsigned)client->height, &err);
    free(pixels);
    if (result < 0)
        fprintf(stderr, "%s\n", err.message);
    return result == 0;
}

static bool obey(rfbClient *client, char *command)
{
    char *value = strchr(command, '=');
    int x, y, buttons;
    if (value)
        *value++ = 0;
    if (strcmp(command, "count") == 0)
        return printf("%lu updates, %lu pixels\n", updates, pixels_seen) > 0;
    if (!value)
        return false;
    if (strcmp(command, "type") == 0)
        return type(client, value, KEY_GAP_US);
    if (strcmp(command, "paste") == 0)
        return type(client, value, 0);
    if (strcmp(command, "key") == 0)
        return chord(client, value);
    if (strcmp(command, "wait") == 0)
        return listen_for(client, atof(value));
    if (strcmp(command, "save") == 0)
        return save(client, value);
    if (strcmp(command, "size") == 0 && sscanf(value, "%dx%d", &x, &y) == 2)
        return wait_for_size(client, x, y);
    if (strcmp(command, "move") == 0 && sscanf(value, "%d,%d", &x, &y) == 2)
        return SendPointerEvent(client, x, y, 0) && listen_for(client, 0.1);
    if (strcmp(command, "point") == 0 && sscanf(value, "%d,%d,%d", &x, &y, &buttons) == 3)
        return SendPointerEvent(client, x, y, buttons) && listen_for(client, 0.1);
    if (strcmp(command, "click") == 0 && sscanf(value, "%d,%d", &x, &y) == 2)
        return SendPointerEvent(client, x, y, 1) && listen_for(client, 0.1) &&
               SendPointerEvent(client, x, y, 0) && listen_for(client, 0.1);
    return false;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: vnc_client HOST PORT COMMAND...\n");
        return 2;
    }
    int first = 3;
    if (first < argc && strncmp(argv[first], "password=", 9) == 0)
        password = argv[first++] + 9;
    rfbEnableClientLogging = FALSE;
    rfbClient *client = rfbGetClient(8, 3, 4);
    free(client->serverHost);
    client->serverHost = strdup(argv[1]);
    client->serverPort = atoi(argv[2]);
    client->GetPassword = give_password;
    client->GotFrameBufferUpdate = on_update;
    client->canHandleNewFBSize = TRUE;
    client->appData.enableJPEG = FALSE; /* pictures are compared */
    client->appData.encodingsString = "tight zrle hextile copyrect raw";
    if (!rfbInitClient(client, NULL, NULL)) { /* frees it where it fails */
        fprintf(stderr, "cannot connect to %s:%s\n", argv[1], argv[2]);
        return 1;
    }
    for (int i = first; i < argc; i++) {
        char *command = strdup(argv[i]);
        if (!obey(client, command)) {
            fprintf(stderr, "failed: %s\n", argv[i]);
            return 1;
        }
        free(command);
    }
    free(client->frameBuffer);
    rfbClientCleanup(client);
    return 0;
}
