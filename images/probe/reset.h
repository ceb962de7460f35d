/* Between scenarios: everything as at the start, and proven so. */
#ifndef RESET_H
#define RESET_H

#include "x86.h"

/* False where something could not be brought back: it is in the log as "dirty". */
bool reset_all(void);
/* Have the next reset restore and read back all there is, touched or not. */
void reset_distrust(void);

#endif
