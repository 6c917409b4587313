#include "interp/vector.h"

bool bind_native(struct decode *d, struct op *op)
{
    (void)d;
    (void)op;
    return false;
}
