/* trivisor modes: what this host offers and what auto would choose. */
#include <stdio.h>
#include <string.h>
#include <trivisor/trivisor.h>

#include "cli/cli.h"

static void print_json_string(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        putchar(*text);
    }
    putchar('"');
}

static void print_json(const struct tv_mode_report *reports, unsigned count, unsigned chosen,
                       const char *why)
{
    printf("{\n  \"auto\": ");
    print_json_string(reports[chosen].name);
    printf(",\n  \"why\": ");
    print_json_string(why);
    printf(",\n  \"modes\": [");
    for (unsigned i = 0; i < count; i++) {
        printf("%s\n    {\"name\": ", i ? "," : "");
        print_json_string(reports[i].name);
        printf(", \"available\": %s, \"ns_per_instruction\": %.2f, \"detail\": ",
               reports[i].available ? "true" : "false", reports[i].ns_per_instruction);
        print_json_string(reports[i].detail);
        putchar('}');
    }
    printf("\n  ]\n}\n");
}

static void print_table(const struct tv_mode_report *reports, unsigned count, unsigned chosen,
                        const char *why)
{
    for (unsigned i = 0; i < count; i++) {
        printf("%c %-8s %-12s ", i == chosen ? '*' : ' ', reports[i].name,
               reports[i].available ? "available" : "unavailable");
        if (reports[i].ns_per_instruction > 0)
            printf("%9.2f ns an instruction  ", reports[i].ns_per_instruction);
        printf("%s\n", reports[i].detail);
    }
    printf("auto picks %s: %s\n", reports[chosen].name, why);
}

int cmd_modes(int argc, char **argv)
{
    bool json = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            json = true;
        else
            return cli_usage_error("modes: unexpected argument '%s'", argv[i]);
    }
    struct tv_mode_report reports[TV_MODE_REPORTS_MAX];
    unsigned chosen = 0;
    char why[512];
    unsigned count = tv_modes_measure(reports, &chosen, why, sizeof why);
    if (json)
        print_json(reports, count, chosen, why);
    else
        print_table(reports, count, chosen, why);
    return EXIT_OK;
}
