/* The vector unit's instructions: state and control here in C, computing by native execution. */
#include "interp/vector.h"

bool bind_vector(struct decode *d, struct op *op)
{
    return bind_xsave(d, op) || bind_native(d, op);
}
