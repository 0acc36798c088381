#define CST_LOG_AREA "cli"
#include "cli/signals.h"

#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

static void watched(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGUSR2);
}

void cst_signals_block(void)
{
	sigset_t set;
	watched(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

bool cst_signals_wait(void)
{
	sigset_t set;
	watched(&set);
	for (;;) {
		int number = sigwaitinfo(&set, NULL);
		if (number < 0 && errno == EINTR)
			continue;
		if (number == SIGHUP) {
			cst_log_reopen();
			cst_log_info("log reopened on SIGHUP");
			continue;
		}
		if (number == SIGINT || number == SIGTERM)
			cst_log_info("stopping on %s", number == SIGINT ? "SIGINT" : "SIGTERM");
		return number == SIGINT || number == SIGTERM;
	}
}

void cst_signals_wake(unsigned long thread)
{
	pthread_kill(thread, SIGUSR2);
}
