/* Signals of a long-running command: they are blocked in all threads and read by one. Call cst_signals_block() before threads
 * exist. */
#pragma once

#include <stdbool.h>

/* Blocks SIGINT, SIGTERM, SIGHUP and SIGUSR2, ignores SIGPIPE. */
void cst_signals_block(void);
/* Waits for SIGINT or SIGTERM (true) or cst_signals_wake() (false); SIGHUP reopens the log meanwhile. */
bool cst_signals_wait(void);
/* Ends the wait of the thread. */
void cst_signals_wake(unsigned long thread);
