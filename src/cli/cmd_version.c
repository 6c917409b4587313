#include <stdio.h>
#include <trivisor/trivisor.h>

#include "cli/cli.h"

int cmd_version(int argc, char **argv)
{
    if (argc > 1)
        return cli_usage_error("version: unexpected argument '%s'", argv[1]);
    printf("trivisor %s\n", tv_version());
    return EXIT_OK;
}
