/* Renewal: before expiry, when files change, after a refusal, with many waiting; and what stays when the source fails. */
#include "test_cred_common.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define OSS(...) (&(struct cst_credentials_config){.cloud = CST_CLOUD_OSS, .bucket = "b", __VA_ARGS__})

/* A key service whose keys are numbered. */
struct issuer {
	int number;  /* of the key given next */
	int advance; /* added after each answer */
	int life;    /* seconds; 0: no expiration */
	int status;
	int hold;    /* answers wait while this is set */
	int entered; /* requests that have arrived */
};

static int issue(void *arg, const struct cred_request *req, struct cst_buf *body)
{
	struct issuer *s = arg;
	char when[CST_TIME_TEXT];
	(void)req;
	__atomic_add_fetch(&s->entered, 1, __ATOMIC_ACQ_REL);
	int number = __atomic_fetch_add(&s->number, __atomic_load_n(&s->advance, __ATOMIC_ACQUIRE), __ATOMIC_ACQ_REL);
	while (__atomic_load_n(&s->hold, __ATOMIC_ACQUIRE))
		cst_sleep(CST_NS_PER_MS);
	int status = __atomic_load_n(&s->status, __ATOMIC_ACQUIRE);
	int life = __atomic_load_n(&s->life, __ATOMIC_ACQUIRE);
	if (status != 200)
		return status;
	cst_time_iso(cst_wall() / CST_NS_PER_S + life, when);
	cst_buf_printf(body, "{\"AccessKeyId\":\"A%d\",\"AccessKeySecret\":\"S%d\"", number, number);
	if (life)
		cst_buf_printf(body, ",\"Expiration\":\"%s\"", when);
	cst_buf_add_str(body, "}");
	return 200;
}

static void set(int *field, int value)
{
	__atomic_store_n(field, value, __ATOMIC_RELEASE);
}

static int get(int *field)
{
	return __atomic_load_n(field, __ATOMIC_ACQUIRE);
}

struct renewal {
	int called, rc;
};

static void renewed(void *arg, int rc)
{
	struct renewal *r = arg;
	__atomic_store_n(&r->rc, rc, __ATOMIC_RELEASE);
	__atomic_add_fetch(&r->called, 1, __ATOMIC_ACQ_REL);
}

static void before_expiry(void **state)
{
	(void)state;
	struct issuer s = {.advance = 1, .life = 4, .status = 200};
	struct cred_mock *m = cred_mock_new(NULL, 0, issue, &s);
	struct cst_credentials *c = cred_accepted(OSS(.ram_role = cred_mock_url(m)), "A0 S0 ");
	struct cst_credential first, now;
	cst_credentials_get(c, &first);
	cred_wait_for(!cred_key_is(c, "A0"));
	cst_credentials_get(c, &now);
	assert_true(now.generation == first.generation + 1);
	assert_true(now.expires >= first.expires);
	assert_true(cst_credentials_generation(c) >= now.generation);
	cst_credentials_free(c);
	cred_mock_free(m);
}

static void old_one_serves_while_the_source_fails(void **state)
{
	(void)state;
	struct issuer s = {.advance = 1, .life = 4, .status = 200};
	struct cred_mock *m = cred_mock_new(NULL, 0, issue, &s);
	struct cst_credentials *c = cred_accepted(OSS(.ram_role = cred_mock_url(m)), "A0 S0 ");
	set(&s.status, 500);
	cred_wait_for(get(&s.entered) >= 5);
	assert_true(cred_key_is(c, "A0"));
	set(&s.life, 3600);
	set(&s.status, 200);
	cred_wait_for(!cred_key_is(c, "A0"));
	cst_credentials_free(c);
	cred_mock_free(m);
}

static void renewal_after_a_refusal(void **state)
{
	(void)state;
	struct issuer s = {.advance = 1, .life = 3600, .status = 200};
	struct cred_mock *m = cred_mock_new(NULL, 0, issue, &s);
	struct cst_credentials *c = cred_accepted(OSS(.ram_role = cred_mock_url(m)), "A0 S0 ");
	struct renewal r = {0};
	uint64_t generation = cst_credentials_generation(c);
	cst_credentials_renew(c, generation, renewed, &r);
	cred_wait_for(get(&r.called));
	assert_int_equal(r.rc, 0);
	assert_true(cred_key_is(c, "A1"));
	/* Someone whose request was signed with the old one needs no fetch. */
	int before = get(&s.entered);
	struct renewal late = {0};
	cst_credentials_renew(c, generation, renewed, &late);
	assert_int_equal(get(&late.called), 1);
	assert_int_equal(late.rc, 0);
	assert_int_equal(get(&s.entered), before);
	cst_credentials_free(c);
	cred_mock_free(m);
}

static void many_waiters_share_a_fetch(void **state)
{
	(void)state;
	struct issuer s = {.advance = 1, .life = 3600, .status = 200};
	struct cred_mock *m = cred_mock_new(NULL, 0, issue, &s);
	struct cst_credentials *c = cred_accepted(OSS(.ram_role = cred_mock_url(m)), "A0 S0 ");
	struct renewal r[50] = {0};
	uint64_t generation = cst_credentials_generation(c);
	set(&s.hold, 1);
	cst_credentials_renew(c, generation, renewed, &r[0]);
	cred_wait_for(get(&s.entered) == 2);
	for (size_t i = 1; i < CST_ARRAY_LEN(r); i++)
		cst_credentials_renew(c, generation, renewed, &r[i]);
	/* Reading goes on meanwhile. */
	assert_true(cred_key_is(c, "A0"));
	set(&s.hold, 0);
	for (size_t i = 0; i < CST_ARRAY_LEN(r); i++) {
		cred_wait_for(get(&r[i].called));
		assert_int_equal(r[i].called, 1);
		assert_int_equal(r[i].rc, 0);
	}
	assert_int_equal(get(&s.entered), 2);
	cst_credentials_free(c);
	cred_mock_free(m);
}

/* A fetch that began before the refusal may have read the old key: those who came meanwhile get one of their own. */
static void waiters_of_a_fetch_that_brought_nothing(void **state)
{
	(void)state;
	struct issuer s = {.advance = 0, .life = 0, .status = 200};
	cred_write("pw", "A0:S0\n", 0600);
	struct cst_credentials *c = cred_accepted(OSS(.passwd_file = cred_path("pw")), "A0 S0 ");
	struct renewal r[2] = {0};
	cst_credentials_renew(c, cst_credentials_generation(c), renewed, &r[0]);
	cred_wait_for(get(&r[0].called));
	assert_int_equal(r[0].rc, -EACCES);
	cst_credentials_free(c);

	struct cred_mock *m = cred_mock_new(NULL, 0, issue, &s);
	c = cred_accepted(OSS(.ram_role = cred_mock_url(m)), "A0 S0 ");
	uint64_t generation = cst_credentials_generation(c);
	set(&s.hold, 1);
	memset(r, 0, sizeof(r));
	cst_credentials_renew(c, generation, renewed, &r[0]);
	cred_wait_for(get(&s.entered) == 2);
	cst_credentials_renew(c, generation, renewed, &r[1]);
	set(&s.number, 1);
	set(&s.hold, 0);
	cred_wait_for(get(&r[0].called) && get(&r[1].called));
	assert_int_equal(r[0].rc, -EACCES);
	assert_int_equal(r[1].rc, 0);
	assert_true(cred_key_is(c, "A1"));
	cst_credentials_free(c);
	cred_mock_free(m);
}

/* Requests that are refused for other reasons must not turn into requests to the key service. */
static void same_key_again_is_not_asked_for_at_once(void **state)
{
	(void)state;
	struct issuer s = {.advance = 0, .life = 3600, .status = 200};
	struct cred_mock *m = cred_mock_new(NULL, 0, issue, &s);
	struct cst_credentials *c = cred_accepted(OSS(.ram_role = cred_mock_url(m)), "A0 S0 ");
	uint64_t generation = cst_credentials_generation(c);
	struct renewal r = {0};
	for (int i = 1; i <= 20; i++) {
		/* Another expiration makes no other key. */
		set(&s.life, 3600 + i);
		cst_credentials_renew(c, generation, renewed, &r);
		cred_wait_for(get(&r.called) == i);
		assert_int_equal(r.rc, -EACCES);
	}
	assert_int_equal(get(&s.entered), 2);
	assert_int_equal(cst_credentials_generation(c), generation);
	cst_credentials_free(c);
	cred_mock_free(m);
}

static void source_that_fails_on_demand(void **state)
{
	(void)state;
	struct issuer s = {.advance = 1, .life = 3600, .status = 200};
	struct cred_mock *m = cred_mock_new(NULL, 0, issue, &s);
	struct cst_credentials *c = cred_accepted(OSS(.ram_role = cred_mock_url(m)), "A0 S0 ");
	struct renewal r = {0};
	set(&s.status, 404);
	cst_credentials_renew(c, cst_credentials_generation(c), renewed, &r);
	cred_wait_for(get(&r.called));
	assert_int_equal(r.rc, -ENOENT);
	assert_true(cred_key_is(c, "A0"));
	cst_credentials_free(c);
	cred_mock_free(m);
}

static void keys_without_a_source(void **state)
{
	(void)state;
	struct renewal r = {0};
	struct cst_credentials *c = cred_accepted(OSS(.access_key = "A", .secret_key = "S"), "A S ");
	cst_credentials_renew(c, cst_credentials_generation(c), renewed, &r);
	assert_int_equal(r.called, 1);
	assert_int_equal(r.rc, -EACCES);
	cst_credentials_free(c);
	cst_credentials_free(NULL);
}

static void ending_while_someone_waits(void **state)
{
	(void)state;
	struct issuer s = {.advance = 1, .life = 3600, .status = 200};
	struct cred_mock *m = cred_mock_new(NULL, 0, issue, &s);
	struct cst_credentials *c = cred_accepted(OSS(.ram_role = cred_mock_url(m)), "A0 S0 ");
	struct renewal r[2] = {0};
	uint64_t generation = cst_credentials_generation(c);
	set(&s.hold, 1);
	cst_credentials_renew(c, generation, renewed, &r[0]);
	cred_wait_for(get(&s.entered) == 2);
	cst_credentials_renew(c, generation, renewed, &r[1]);
	cst_credentials_free(c);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(r[i].called, 1);
		assert_int_equal(r[i].rc, -ECANCELED);
	}
	set(&s.hold, 0);
	cred_mock_free(m);
}

/* ---- files ---- */

static void rotate_passwd(bool inotify)
{
	cst_cred_use_inotify = inotify;
	cst_cred_poll_interval = inotify ? 3600 * CST_NS_PER_S : 50 * CST_NS_PER_MS;
	cred_write("pw", "A0:S0\n", 0600);
	struct cst_credentials *c = cred_accepted(OSS(.passwd_file = cred_path("pw")), "A0 S0 ");
	cred_write("pw", "A1:S1\n", 0600); /* in place */
	cred_wait_for(cred_key_is(c, "A1"));
	cred_replace("pw", "A2:S2\n"); /* moved over */
	cred_wait_for(cred_key_is(c, "A2"));
	/* Broken, or gone: the last good one stays, and the next good one is taken. */
	cred_write("pw", "nonsense\n", 0600);
	cst_sleep(300 * CST_NS_PER_MS);
	assert_true(cred_key_is(c, "A2"));
	assert_int_equal(unlink(cred_path("pw")), 0);
	cst_sleep(300 * CST_NS_PER_MS);
	assert_true(cred_key_is(c, "A2"));
	cred_write("pw", "A3:S3\n", 0600);
	cred_wait_for(cred_key_is(c, "A3"));
	cst_credentials_free(c);
}

static void passwd_file_rotation(void **state)
{
	(void)state;
	rotate_passwd(true);
}

static void passwd_file_rotation_without_inotify(void **state)
{
	(void)state;
	rotate_passwd(false);
}

static void profile_rotation(void **state)
{
	(void)state;
	cst_cred_poll_interval = 3600 * CST_NS_PER_S;
	cred_write(".aws/credentials", "[default]\naws_access_key_id=A0\naws_secret_access_key=S0\n", 0600);
	cred_write(".aws/config", "", 0600);
	struct cst_credentials *c = cred_accepted(&(struct cst_credentials_config){.cloud = CST_CLOUD_S3}, "A0 S0 ");
	cred_replace(".aws/credentials", "[default]\naws_access_key_id=A1\naws_secret_access_key=S1\n");
	cred_wait_for(cred_key_is(c, "A1"));
	cred_replace(".aws/credentials", "");
	cred_replace(".aws/config", "[default]\naws_access_key_id=A2\naws_secret_access_key=S2\n");
	cred_wait_for(cred_key_is(c, "A2"));
	cst_credentials_free(c);
}

static void kube_version(int n)
{
	char name[64], value[32], target[32];
	snprintf(name, sizeof(name), "vol/..v%d/akId", n);
	snprintf(value, sizeof(value), "A%d", n);
	cred_write(name, value, 0600);
	snprintf(name, sizeof(name), "vol/..v%d/akSecret", n);
	snprintf(value, sizeof(value), "S%d", n);
	cred_write(name, value, 0600);
	snprintf(target, sizeof(target), "..v%d", n);
	assert_int_equal(symlink(target, cred_path("vol/..data_tmp")), 0);
	assert_int_equal(rename(cred_path("vol/..data_tmp"), cred_path("vol/..data")), 0);
}

struct reader {
	struct cst_credentials *c;
	int stop, mixed, reads;
};

/* Reads all the time: every credential seen must be a pair that was one. */
static void *read_always(void *arg)
{
	struct reader *r = arg;
	while (!get(&r->stop)) {
		struct cst_credential cred;
		cst_credentials_get(r->c, &cred);
		if (strcmp(cred.access_key + 1, cred.secret_key + 1) != 0)
			set(&r->mixed, 1);
		__atomic_add_fetch(&r->reads, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void kubernetes_rotation_under_readers(void **state)
{
	(void)state;
	cst_cred_poll_interval = 20 * CST_NS_PER_MS;
	kube_version(0);
	assert_int_equal(symlink("..data/akId", cred_path("vol/akId")), 0);
	assert_int_equal(symlink("..data/akSecret", cred_path("vol/akSecret")), 0);
	struct reader r = {.c = cred_accepted(OSS(.secret_dir = cred_path("vol")), "A0 S0 ")};
	pthread_t threads[2];
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_always, &r), 0);
	for (int n = 1; n <= 20; n++) {
		char old[64], key[16];
		kube_version(n);
		/* kubelet removes the version before. */
		snprintf(old, sizeof(old), "vol/..v%d/akId", n - 1);
		unlink(cred_path(old));
		snprintf(old, sizeof(old), "vol/..v%d/akSecret", n - 1);
		unlink(cred_path(old));
		if (n % 5 != 0)
			continue;
		snprintf(key, sizeof(key), "A%d", n);
		cred_wait_for(cred_key_is(r.c, key));
	}
	set(&r.stop, 1);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_false(r.mixed);
	assert_true(r.reads > 0);
	cst_credentials_free(r.c);
}

static void loose_files_are_not_mixed(void **state)
{
	(void)state;
	cst_cred_poll_interval = 10 * CST_NS_PER_MS;
	cred_write("sec/akId", "A0", 0600);
	cred_write("sec/akSecret", "S0", 0600);
	struct reader r = {.c = cred_accepted(OSS(.secret_dir = cred_path("sec")), "A0 S0 ")};
	pthread_t thread;
	bool slow = false;
	assert_int_equal(pthread_create(&thread, NULL, read_always, &r), 0);
	for (int n = 1; n <= 3; n++) {
		char id[16], secret[16];
		snprintf(id, sizeof(id), "A%d", n);
		snprintf(secret, sizeof(secret), "S%d", n);
		int64_t begin = cst_now();
		cred_write("sec/akId", id, 0600);
		cst_sleep(40 * CST_NS_PER_MS);
		cred_write("sec/akSecret", secret, 0600);
		/* Loose files are given 250 ms; a machine that is busier than that proves nothing. */
		slow |= cst_now() - begin > 200 * CST_NS_PER_MS;
		cred_wait_for(cred_key_is(r.c, id));
	}
	set(&r.stop, 1);
	pthread_join(thread, NULL);
	assert_true(slow || !r.mixed);
	cst_credentials_free(r.c);
}

static void directory_replaced_as_a_whole(void **state)
{
	(void)state;
	cst_cred_poll_interval = 50 * CST_NS_PER_MS;
	cred_write("sec/akId", "A0", 0600);
	cred_write("sec/akSecret", "S0", 0600);
	cred_write("next/akId", "A1", 0600);
	cred_write("next/akSecret", "S1", 0600);
	struct cst_credentials *c = cred_accepted(OSS(.secret_dir = cred_path("sec")), "A0 S0 ");
	assert_int_equal(rename(cred_path("sec"), cred_path("old")), 0);
	assert_int_equal(rename(cred_path("next"), cred_path("sec")), 0);
	cred_wait_for(cred_key_is(c, "A1"));
	cred_write("sec/akId", "A2", 0600);
	cred_write("sec/akSecret", "S2", 0600);
	cred_wait_for(cred_key_is(c, "A2"));
	cst_credentials_free(c);
}

/* ---- memory ---- */

/* The sanitizers turn mlock() into nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LOCKS 0
#else
#define LOCKS 1
#endif

/* Finds the mapping that holds `p` and returns its VmFlags line. */
static void vm_flags(const void *p, char *out, size_t size)
{
	char line[512];
	bool inside = false;
	FILE *f = fopen("/proc/self/smaps", "re");
	assert_non_null(f);
	out[0] = '\0';
	while (fgets(line, sizeof(line), f)) {
		char *end;
		unsigned long start = strtoul(line, &end, 16);
		if (*end == '-')
			inside = (uintptr_t)p >= start && (uintptr_t)p < strtoul(end + 1, NULL, 16);
		else if (inside && strncmp(line, "VmFlags:", 8) == 0)
			snprintf(out, size, "%s", line);
	}
	fclose(f);
}

static void secret_memory_is_locked_and_not_dumped(void **state)
{
	(void)state;
	char flags[512];
	char *p = cst_secret_map(5000);
	memset(p, 'x', 5000);
	vm_flags(p, flags, sizeof(flags));
	if (!strstr(flags, " dd") || (LOCKS && !strstr(flags, " lo")))
		print_message("%s\n", flags);
	assert_non_null(strstr(flags, " dd"));
	if (LOCKS)
		assert_non_null(strstr(flags, " lo"));
	cst_secret_unmap(p, 5000);
	cst_secret_unmap(NULL, 0);
	struct cst_secret_buf b;
	cst_secret_buf_init(&b, 4);
	assert_int_equal(cst_secret_buf_add(&b, "abc", 3), 0);
	assert_int_equal(cst_secret_buf_add(&b, "de", 2), -EFBIG);
	assert_string_equal(b.data, "abc");
	cst_secret_buf_clear(&b);
	assert_int_equal(b.data[0] | b.data[1] | b.data[2], 0);
	cst_secret_buf_fini(&b);
}

static int hidden(void)
{
	char text[32] = "";
	struct rlimit limit;
	cst_process_hide_secrets();
	if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0 || getrlimit(RLIMIT_CORE, &limit) < 0 || limit.rlim_max != 0)
		return 1;
	CST_AUTO_CLOSE int fd = open("/proc/self/coredump_filter", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && (read(fd, text, sizeof(text) - 1) <= 0 || strtoul(text, NULL, 16) != 0x10))
		return 2;
	return 0;
}

static void process_is_not_dumpable(void **state)
{
	(void)state;
	int status;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(hidden());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, cred_home_setup, cred_home_teardown)
	const struct CMUnitTest tests[] = {
		TEST(before_expiry),
		TEST(old_one_serves_while_the_source_fails),
		TEST(renewal_after_a_refusal),
		TEST(many_waiters_share_a_fetch),
		TEST(waiters_of_a_fetch_that_brought_nothing),
		TEST(same_key_again_is_not_asked_for_at_once),
		TEST(source_that_fails_on_demand),
		TEST(keys_without_a_source),
		TEST(ending_while_someone_waits),
		TEST(passwd_file_rotation),
		TEST(passwd_file_rotation_without_inotify),
		TEST(profile_rotation),
		TEST(kubernetes_rotation_under_readers),
		TEST(loose_files_are_not_mixed),
		TEST(directory_replaced_as_a_whole),
		TEST(secret_memory_is_locked_and_not_dumped),
		TEST(process_is_not_dumpable),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
