/* Who runs the machine, and does to it from outside what a scenario asks for. */
#ifndef MONITOR_H
#define MONITOR_H

#include "x86.h"

/* Says the number of what is asked for, and waits until it is done. */
void monitor_ask(u32 request);

#endif
