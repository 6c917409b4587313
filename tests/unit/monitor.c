/* How the monitor reads its lines. */
#include "mgmt/monitor.h"

#include <string.h>

#include "check.h"

/* The words of a line with bars between them; "error" where it is none. */
static const char *split(const char *text)
{
    static char line[256], joined[256];
    const char *words[MONITOR_WORDS];
    struct tv_error err;
    snprintf(line, sizeof line, "%s", text);
    int count = monitor_split(line, words, &err);
    if (count < 0)
        return "error";
    joined[0] = 0;
    for (int i = 0; i < count; i++) {
        strcat(joined, words[i]);
        strcat(joined, "|");
    }
    return joined;
}

int main(void)
{
    static const char *const cases[][2] = {
        {"", ""},
        {"  \t\r", ""},
        {"info", "info|"},
        {" change  cdrom\ta.iso \r", "change|cdrom|a.iso|"},
        {"change cdrom \"a b.iso\" ro", "change|cdrom|a b.iso|ro|"},
        {"type \"\"", "type||"},
        {"type \"a \\\"b\\\" \\\\ \\n\"", "type|a \"b\" \\ \\n|"},
        {"type a\\b", "type|a\\b|"},
        {"a\" \"b c", "a b|c|"},
        {"type \"a", "error"},
        {"type \"a\\\"", "error"},
        {"1 2 3 4 5 6 7 8", "1|2|3|4|5|6|7|8|"},
        {"1 2 3 4 5 6 7 8 9", "error"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK(strcmp(split(cases[i][0]), cases[i][1]) == 0);
    return check_result();
}
