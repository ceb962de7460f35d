/* Between scenarios: everything as at the start, and proven so. */
#ifndef RESET_H
#define RESET_H

#include "program.h"

/*
 * Of all that a scenario can see; `next` or NULL: with the RTC's pin, where it needs that.  False
 * where something could not be brought back: it is in the log as "dirty".
 */
bool reset_all(const struct program *next);
/* Have the next reset restore and read back all there is, touched or not. */
void reset_distrust(void);

#endif
