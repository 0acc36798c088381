/* Going to the background with a readiness pipe: the parent waits until the child says that it works, or why it does not, prints that
 * and exits with the child's status. Call before threads exist. */
#pragma once

#include "base/error.h"

struct cst_daemon {
	int fd; /* child: the write end; -1: in the foreground, or told already */
};
/* Forks. Returns 0 in the child, which is a session leader's child with / as its directory. The parent does not return: it prints and
 * exits. -errno: could not fork. `ready_text` is what the parent prints on success, NULL: nothing. */
int cst_daemon_fork(struct cst_daemon *daemon, const char *ready_text, struct cst_error *err);
/* Standard input, output and error go to /dev/null. */
void cst_daemon_detach(void);
/* Child: it works; standard input, output and error go to /dev/null. */
void cst_daemon_ready(struct cst_daemon *daemon);
/* Child: it failed with this line and exit status. The caller exits then. */
void cst_daemon_failed(struct cst_daemon *daemon, const char *line, int status);
