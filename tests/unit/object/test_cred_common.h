/* What the tests of the credential providers share: a home of their own, files, waiting, and an HTTP server that answers as the
 * test says. One test at a time. */
#pragma once

#include "base/buf.h"
#include "base/clock.h"
#include "object/credentials_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Makes an empty directory, points HOME there and clears the variables that providers read. cmocka setup and teardown. */
int cred_home_setup(void **state);
int cred_home_teardown(void **state);
extern char cred_home[64];
/* A path below the home; the string is good until the fourth next call. */
const char *cred_path(const char *name);
void cred_write(const char *name, const char *text, unsigned mode);
/* Writes a new file and moves it over the old one. */
void cred_replace(const char *name, const char *text);

/* True within 20 s, or the test fails. */
#define cred_wait_for(condition)                              \
	do {                                                  \
		int64_t _end = cst_now() + 20 * CST_NS_PER_S; \
		while (!(condition) && cst_now() < _end)      \
			cst_sleep(5 * CST_NS_PER_MS);         \
		assert_true(condition);                       \
	} while (0)

bool cred_key_is(struct cst_credentials *c, const char *access_key);

/* Expects that cst_credentials_new fails, with these words in its error, and returns the positive code. */
int cred_refused(const struct cst_credentials_config *config, const char *words);
/* Expects that it works and gives this credential ("id secret token"). */
struct cst_credentials *cred_accepted(const struct cst_credentials_config *config, const char *expected);

struct cred_request {
	const char *method, *target;
	const char *headers; /* "Name: value\r\n" lines */
	const char *body;
};
/* Returns the HTTP status and appends the body; CRED_MOCK_STALL: no answer until the server is stopped. */
#define CRED_MOCK_STALL (-1)
typedef int (*cred_mock_fn)(void *arg, const struct cred_request *req, struct cst_buf *body);
struct cred_mock;
/* On 127.0.0.1 and a free port, or on the address and port given (NULL, 0). */
struct cred_mock *cred_mock_new(const char *address, int port, cred_mock_fn fn, void *arg);
void cred_mock_free(struct cred_mock *m);
const char *cred_mock_url(const struct cred_mock *m); /* "http://127.0.0.1:PORT" */
int cred_mock_requests(const struct cred_mock *m);
bool cred_has_header(const struct cred_request *req, const char *line);
