#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/proxy.h"
#include "net/resolver.h"

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

/* ---- resolver ---- */

struct names {
	unsigned asked;
	int rc;
};

static int fake_source(void *arg, const char *host, struct cst_addresses **out, const char **why)
{
	struct names *names = arg;

	__atomic_add_fetch(&names->asked, 1, __ATOMIC_RELAXED);
	if (names->rc || strcmp(host, "missing") == 0) {
		*why = "no such name";
		return -EHOSTUNREACH;
	}
	*out = cst_xcalloc(1, sizeof(**out) + 3 * sizeof((*out)->list[0]));
	cst_ref_init(&(*out)->ref);
	for (; (*out)->count < 3; (*out)->count++) {
		static const char *const literals[] = {"192.0.2.1", "192.0.2.2", "2001:db8::3"};

		CST_ASSERT(cst_resolver_literal(literals[(*out)->count], &(*out)->list[(*out)->count]));
	}
	return 0;
}

struct question {
	struct cst_resolver_query query;
	struct cst_addresses *addresses;
	int rc;
	const char *why;
	sem_t end;
};

static void answered(struct cst_resolver_query *query, struct cst_addresses *addresses, int rc, const char *why)
{
	struct question *q = cst_container_of(query, struct question, query);

	q->addresses = addresses;
	q->rc = rc;
	q->why = why;
	sem_post(&q->end);
}

static struct cst_addresses *ask(struct cst_resolver *r, const char *host, int *rc)
{
	struct question q = {.query.fn = answered};

	sem_init(&q.end, 0, 0);
	cst_resolver_get(r, host, &q.query);
	sem_wait(&q.end);
	sem_destroy(&q.end);
	*rc = q.rc;
	return q.addresses;
}

static void test_answers_are_kept(void **state)
{
	struct names names = {0};
	struct cst_resolver *r = cst_resolver_new(fake_source, &names);
	struct cst_addresses *a, *b;
	int rc;

	(void)state;
	a = ask(r, "store.example", &rc);
	b = ask(r, "STORE.example", &rc);
	assert_non_null(a);
	assert_ptr_equal(a, b);
	assert_int_equal(names.asked, 1);
	cst_addresses_unref(a);
	cst_addresses_unref(b);
	/* Failures are not kept. */
	assert_null(ask(r, "missing", &rc));
	assert_int_equal(rc, -EHOSTUNREACH);
	assert_null(ask(r, "missing", &rc));
	assert_int_equal(names.asked, 3);
	/* Literals are not asked for. */
	a = ask(r, "::1", &rc);
	assert_int_equal(a->count, 1);
	assert_int_equal(a->list[0].ss_family, AF_INET6);
	assert_int_equal(names.asked, 3);
	cst_addresses_unref(a);
	cst_resolver_free(r);
}

static void test_turns_and_bad_addresses(void **state)
{
	struct names names = {0};
	struct cst_resolver *r = cst_resolver_new(fake_source, &names);
	struct sockaddr_storage address;
	struct cst_addresses *a;
	int rc;

	(void)state;
	a = ask(r, "store.example", &rc);
	for (unsigned turn = 0; turn < 7; turn++)
		assert_int_equal(cst_resolver_pick(r, a, 80, turn, 0), turn % 3);
	assert_int_equal(cst_resolver_pick(r, a, 80, 1, 2), 2);
	assert_int_equal(cst_resolver_pick(r, a, 80, 1, 2 | 4), 0);
	assert_int_equal(cst_resolver_pick(r, a, 80, 1, 7), -1);
	address = a->list[1];
	cst_address_set_port(&address, 80);
	cst_resolver_mark_bad(r, &address);
	assert_int_equal(cst_resolver_pick(r, a, 80, 1, 0), 2);
	assert_int_equal(cst_resolver_pick(r, a, 81, 1, 0), 1);	    /* another port is another server */
	assert_int_equal(cst_resolver_pick(r, a, 80, 1, 1 | 4), 1); /* better a bad one than none */
	cst_addresses_unref(a);
	cst_resolver_free(r);
}

/* ---- proxies ---- */

static const char *const *variables;

static const char *get_variable(const char *name)
{
	for (const char *const *v = variables; *v; v += 2)
		if (strcmp(v[0], name) == 0)
			return v[1];
	return NULL;
}

static int select_with(const char *const *env, bool tls, const char *host, uint16_t port, struct cst_proxy *proxy)
{
	struct cst_proxy_config *config;
	struct cst_error err = CST_ERROR_INIT;
	int rc;

	variables = env;
	config = cst_proxy_config_new(get_variable);
	rc = cst_proxy_select(config, tls, host, port, proxy, &err);
	assert_int_equal(rc < 0, err.code != 0);
	assert_null(strstr(err.why, "secret"));
	cst_proxy_config_free(config);
	return rc;
}

static void test_proxy_variables(void **state)
{
	struct cst_proxy p;

	(void)state;
	assert_int_equal(select_with((const char *[]){NULL}, false, "h", 80, &p), 0);
	assert_int_equal(select_with((const char *[]){"http_proxy", "http://px:3128/", NULL}, false, "h", 80, &p), 1);
	assert_string_equal(p.host, "px");
	assert_int_equal(p.port, 3128);
	assert_string_equal(p.authorization, "");
	assert_int_equal(select_with((const char *[]){"http_proxy", "http://px:3128/", NULL}, true, "h", 443, &p), 0);
	assert_int_equal(select_with((const char *[]){"HTTP_PROXY", "px", NULL}, false, "h", 80, &p), 1);
	assert_int_equal(p.port, 1080);
	assert_int_equal(
		select_with((const char *[]){"HTTP_PROXY", "px", "REQUEST_METHOD", "GET", NULL}, false, "h", 80, &p),
		0);
	assert_int_equal(
		select_with((const char *[]){"HTTPS_PROXY", "a:1", "https_proxy", "b:2", NULL}, true, "h", 443, &p), 1);
	assert_string_equal(p.host, "b");
	assert_int_equal(select_with((const char *[]){"ALL_PROXY", "a:1", "https_proxy", "", NULL}, true, "h", 443, &p),
			 1);
	assert_string_equal(p.host, "a");
	assert_int_equal(
		select_with((const char *[]){"https_proxy", "HTTP://u%3a:s%40@[::1]:8080", NULL}, true, "h", 443, &p),
		1);
	assert_string_equal(p.host, "::1");
	assert_int_equal(p.port, 8080);
	assert_string_equal(p.authorization, "Basic dTo6c0A="); /* "u::s@" */
	static const char *const unusable[] = {
		"socks5://u:secret@h:1", "https://h",	  "http://", "http://h:0", "http://h:x",
		"http://[::1",		 "http://u:%zz@h"};
	for (size_t i = 0; i < CST_ARRAY_LEN(unusable); i++)
		assert_int_equal(select_with((const char *[]){"http_proxy", unusable[i], NULL}, false, "h", 80, &p),
				 -EINVAL);
}

static void test_no_proxy(void **state)
{
	static const struct {
		const char *none, *host;
		uint16_t port;
		bool direct;
	} cases[] = {
		{"*", "h", 80, true},
		{"a,b c", "b", 80, true},
		{" a , c", "c", 80, true},
		{"example.com", "example.com", 80, true},
		{"EXAMPLE.com", "www.example.COM", 80, true},
		{".example.com", "example.com", 80, true},
		{"*.example.com", "a.b.example.com", 80, true},
		{"example.com.", "example.com", 80, true},
		{"example.com", "example.com.", 80, true},
		{"example.com", "notexample.com", 80, false},
		{"example.com", "example.com.evil", 80, false},
		{"example.com:8080", "example.com", 8080, true},
		{"example.com:8080", "example.com", 80, false},
		{"10.0.0.0/8", "10.255.1.2", 80, true},
		{"10.0.0.0/8", "11.0.0.1", 80, false},
		{"10.1.2.128/25", "10.1.2.127", 80, false},
		{"10.1.2.128/25", "10.1.2.129", 80, true},
		{"0.0.0.0/0", "8.8.8.8", 80, true},
		{"0.0.0.0/0", "::1", 80, false},
		{"10.0.0.0/33", "10.0.0.1", 80, false},
		{"10.0.0.0/8", "host10", 80, false},
		{"fd00::/8", "fd12::1", 80, true},
		{"127.0.0.1", "127.0.0.1", 80, true},
		{"0.0.1", "127.0.0.1", 80, false},
		{"[::1]:99", "::1", 99, true},
		{"[::1]:99", "::1", 98, false},
		{"::1", "0:0::1", 98, true},
		{"", "h", 80, false},
		{",,", "h", 80, false},
		{".", "h", 80, false},
	};
	struct cst_proxy p;

	(void)state;
	for (size_t i = 0; i < CST_ARRAY_LEN(cases); i++) {
		const char *env[] = {"http_proxy", "px:1", i % 2 ? "no_proxy" : "NO_PROXY", cases[i].none, NULL};

		if (select_with(env, false, cases[i].host, cases[i].port, &p) != !cases[i].direct)
			fail_msg("no_proxy=%s host=%s", cases[i].none, cases[i].host);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers_are_kept),
		cmocka_unit_test(test_turns_and_bad_addresses),
		cmocka_unit_test(test_proxy_variables),
		cmocka_unit_test(test_no_proxy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
