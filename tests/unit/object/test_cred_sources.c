/* Choosing a source and reading it: environment, passwd files, profiles, directories, processes; and what is refused. */
#include "test_cred_common.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#define OSS(...) (&(struct cst_credentials_config){.cloud = CST_CLOUD_OSS, .bucket = "b", __VA_ARGS__})
#define S3(...) (&(struct cst_credentials_config){.cloud = CST_CLOUD_S3, .bucket = "b", __VA_ARGS__})

static void expect(const struct cst_credentials_config *config, const char *credential, const char *source)
{
	struct cst_credentials *c = cred_accepted(config, credential);
	if (!strstr(cst_credentials_source(c), source))
		print_message("source: %s\n", cst_credentials_source(c));
	assert_non_null(strstr(cst_credentials_source(c), source));
	cst_credentials_free(c);
}

static void nothing_anywhere(void **state)
{
	(void)state;
	if (access("/etc/passwd-ossfs", F_OK) == 0)
		skip();
	assert_int_equal(cred_refused(OSS(), "can't find credentials"), ENOKEY);
	assert_int_equal(cred_refused(S3(), "aws configure"), ENOKEY);
}

static void anonymous(void **state)
{
	(void)state;
	setenv("OSS_ACCESS_KEY_ID", "A", 1);
	setenv("OSS_ACCESS_KEY_SECRET", "S", 1);
	struct cst_credentials *c = cred_accepted(OSS(.anonymous = true), "  ");
	assert_true(cst_credentials_anonymous(c));
	cst_credentials_free(c);
	c = cred_accepted(OSS(), "A S ");
	assert_false(cst_credentials_anonymous(c));
	cst_credentials_free(c);
}

static void environment(void **state)
{
	(void)state;
	setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "A2", 1);
	setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "S2", 1);
	setenv("ALIBABA_CLOUD_SECURITY_TOKEN", "T2", 1);
	expect(OSS(), "A2 S2 T2", "environment");
	setenv("OSS_ACCESS_KEY_ID", "A1", 1);
	cred_refused(OSS(), "OSS_ACCESS_KEY_ID is set, but OSS_ACCESS_KEY_SECRET is not");
	setenv("OSS_ACCESS_KEY_SECRET", "SECRET123 ", 1);
	cred_refused(OSS(), "OSS_ACCESS_KEY_SECRET has a blank at position 10");
	setenv("OSS_ACCESS_KEY_SECRET", "S1", 1);
	expect(OSS(), "A1 S1 ", "environment");
	setenv("AWS_SECRET_ACCESS_KEY", "SECRET123", 1);
	cred_refused(S3(), "AWS_SECRET_ACCESS_KEY is set, but AWS_ACCESS_KEY_ID is not");
	setenv("AWS_ACCESS_KEY_ID", "A3", 1);
	expect(S3(), "A3 SECRET123 ", "environment");
	/* What the user names goes first. */
	expect(OSS(.access_key = "A4", .secret_key = "S4", .token = "T4"), "A4 S4 T4", "configuration");
	cred_refused(OSS(.secret_key = "SECRET123"), "the access key secret is set, but the access key ID is not");
}

static void passwd_file_modes(void **state)
{
	(void)state;
	static const struct {
		unsigned mode;
		const char *refusal;
	} modes[] = {{0600, NULL},	  {0640, NULL},	      {0400, NULL},
		     {0440, NULL},	  {0644, "everyone"}, {0660, "the group"},
		     {0700, "the owner"}, {0602, "everyone"}, {0650, "the group"}};
	for (size_t i = 0; i < CST_ARRAY_LEN(modes); i++) {
		unlink(cred_path("pw"));
		cred_write("pw", "b:A:SECRET123\n", modes[i].mode);
		const char *path = cred_path("pw");
		if (modes[i].refusal) {
			assert_int_equal(cred_refused(OSS(.passwd_file = path), modes[i].refusal), EACCES);
			cred_refused(OSS(.passwd_file = path), "chmod 600");
		} else {
			expect(OSS(.passwd_file = path), "A SECRET123 ", "/pw");
		}
	}
}

static void passwd_file_contents(void **state)
{
	(void)state;
	assert_int_equal(cred_refused(OSS(.passwd_file = cred_path("absent")), "absent: No such file"), ENOENT);
	cred_write("pw", "other:A:SECRET123\n", 0600);
	assert_int_equal(cred_refused(OSS(.passwd_file = cred_path("pw")), "no entry for bucket b"), ENOKEY);
	cred_write("pw", "b:A\nSECRET123\n", 0600);
	assert_int_equal(cred_refused(OSS(.passwd_file = cred_path("pw")), "line 2: no ':'"), EINVAL);
	char *big = cst_xmalloc(CST_SECRET_SOURCE_MAX + 2);
	memset(big, '#', CST_SECRET_SOURCE_MAX + 1);
	big[CST_SECRET_SOURCE_MAX + 1] = '\0';
	cred_write("pw", big, 0600);
	free(big);
	assert_int_equal(cred_refused(OSS(.passwd_file = cred_path("pw")), "larger than"), EFBIG);
	assert_int_equal(mkfifo(cred_path("fifo"), 0600), 0);
	cred_refused(OSS(.passwd_file = cred_path("fifo")), "fifo");
}

static void passwd_file_in_home(void **state)
{
	(void)state;
	cred_write(".passwd-ossfs", "A:S\n", 0600);
	expect(OSS(), "A S ", ".passwd-ossfs");
	assert_int_equal(chmod(cred_path(".passwd-ossfs"), 0666), 0);
	cred_refused(OSS(), "mode is 0666");
}

static void ossutil_files(void **state)
{
	(void)state;
	cred_write(".passwd-ossfs", "PA:PS\n", 0600);
	/* A file without keys (endpoint only) leaves the chain going. */
	cred_write(".ossutilconfig", "[Credentials]\nendpoint=e\n", 0600);
	expect(OSS(), "PA PS ", ".passwd-ossfs");
	cred_write(".ossutilconfig", "[Credentials]\nendpoint=e\naccessKeyID=A\naccessKeySecret=S\nstsToken=T\n", 0600);
	expect(OSS(), "A S T", ".ossutilconfig");
	cred_write(".ossutilconfig", "[Credentials]\naccessKeyID=A\n", 0600);
	cred_refused(OSS(), "its secret is not");
	cred_write(".ossutilconfig", "[Credentials\n", 0600);
	cred_refused(OSS(), ".ossutilconfig: line 1");
	cred_write(
		"mine",
		"[default]\naccess-key-id=A\naccess-key-secret=S\n[profile p]\nmode=process\n"
		"credential-process=echo '{\"AccessKeyId\":\"PA\",\"AccessKeySecret\":\"PS\"}'\n[profile bad]\nmode=RamRoleArn\n"
		"[profile none]\nmode=Anonymous\n[profile nop]\nmode=process\n",
		0600);
	const char *mine = cst_xstrdup(cred_path("mine"));
	expect(OSS(.ossutil_config = mine), "A S ", "/mine");
	expect(S3(.ossutil_config = mine), "A S ", "/mine");
	expect(OSS(.ossutil_config = mine, .profile = "p"), "PA PS ", "credential process echo");
	assert_int_equal(
		cred_refused(OSS(.ossutil_config = mine, .profile = "bad"), "line 8: this mode is not supported"),
		ENOTSUP);
	cred_refused(OSS(.ossutil_config = mine, .profile = "nobody"), "there is no such profile");
	cred_refused(OSS(.ossutil_config = mine, .profile = "nop"), "no credential-process");
	struct cst_credentials *c = cred_accepted(OSS(.ossutil_config = mine, .profile = "none"), "  ");
	assert_true(cst_credentials_anonymous(c));
	cst_credentials_free(c);
	assert_int_equal(cred_refused(OSS(.ossutil_config = cred_path("absent")), "absent"), ENOENT);
	free((void *)(uintptr_t)mine);
}

static void aws_files(void **state)
{
	(void)state;
	cred_write(".aws/credentials",
		   "[default]\naws_access_key_id=A\naws_secret_access_key=S\n[dev]\naws_access_key_id=DA\n"
		   "aws_secret_access_key=DS\naws_session_token=DT\n",
		   0600);
	cred_write(".aws/config",
		   "[default]\nregion=us-east-1\n[profile proc]\ncredential_process = printf '{\"Version\":1,"
		   "\"AccessKeyId\":\"PA\",\"SecretAccessKey\":\"PS\",\"SessionToken\":\"PT\"}'\n"
		   "[profile role]\nrole_arn=arn:x\nsource_profile=default\n",
		   0600);
	expect(S3(), "A S ", ".aws/credentials");
	expect(S3(.profile = "dev"), "DA DS DT", "[dev]");
	expect(S3(.profile = "proc"), "PA PS PT", "credential process printf");
	assert_int_equal(cred_refused(S3(.profile = "role"), "line 6: role_arn is not supported"), ENOTSUP);
	setenv("AWS_PROFILE", "dev", 1);
	expect(S3(), "DA DS DT", "[dev]");
	setenv("AWS_PROFILE", "nobody", 1);
	cred_refused(S3(), "no such profile");
	unsetenv("AWS_PROFILE");
	cred_write("shared", "[default]\naws_access_key_id=X\naws_secret_access_key=Y\n", 0600);
	setenv("AWS_SHARED_CREDENTIALS_FILE", cred_path("shared"), 1);
	expect(S3(), "X Y ", "/shared");
}

static void endpoints(void **state)
{
	(void)state;
	char endpoint[128], region[64];
	struct cst_error err = CST_ERROR_INIT;
#define ENDPOINT(config, e, r)                                                                                \
	do {                                                                                                  \
		assert_int_equal(cst_credentials_profile_endpoint(config, endpoint, sizeof(endpoint), region, \
								  sizeof(region), &err),                      \
				 0);                                                                          \
		assert_string_equal(endpoint, e);                                                             \
		assert_string_equal(region, r);                                                               \
	} while (0)
	ENDPOINT(OSS(), "", "");
	cred_write(".ossutilconfig",
		   "[Credentials]\nendpoint=all\nregion=cn-beijing\n[Bucket-Endpoint]\nb=mine\nc=theirs\n", 0600);
	ENDPOINT(OSS(), "mine", "cn-beijing");
	ENDPOINT((&(struct cst_credentials_config){.bucket = "x"}), "all", "cn-beijing");
	setenv("OSS_ENDPOINT", "env", 1);
	setenv("OSS_REGION", "envr", 1);
	ENDPOINT((&(struct cst_credentials_config){.bucket = "x"}), "env", "envr");
	ENDPOINT(OSS(), "mine", "envr");
	cred_write(".aws/config",
		   "[default]\nregion=us-west-2\n[profile dev]\nregion=eu-west-1\nendpoint_url=http://minio:9000\n",
		   0600);
	ENDPOINT(S3(), "", "us-west-2");
	ENDPOINT(S3(.profile = "dev"), "http://minio:9000", "eu-west-1");
	setenv("AWS_REGION", "ap-south-1", 1);
	ENDPOINT(S3(.profile = "dev"), "http://minio:9000", "ap-south-1");
	assert_int_equal(
		cst_credentials_profile_endpoint(S3(.profile = "dev"), endpoint, 5, region, sizeof(region), &err),
		-EINVAL);
	cred_write(".ossutilconfig", "[Credentials]\nendpoint\n", 0600);
	assert_int_equal(
		cst_credentials_profile_endpoint(OSS(), endpoint, sizeof(endpoint), region, sizeof(region), &err),
		-EINVAL);
	assert_non_null(strstr(err.why, "line 2"));
}

static void secret_directories(void **state)
{
	(void)state;
	cred_write("sec/akId", "A\n", 0600);
	const char *dir = cst_xstrdup(cred_path("sec"));
	assert_int_equal(cred_refused(OSS(.secret_dir = dir), "neither a file AccessKeySecret nor a file akSecret"),
			 ENOENT);
	cred_write("sec/akSecret", "S\r\n", 0600);
	expect(OSS(.secret_dir = dir), "A S ", "secret directory");
	expect(OSS(.passwd_file = dir), "A S ", "secret directory");
	cred_write("sec/AccessKeyId", "A2", 0600);
	cred_write("sec/AccessKeySecret", "S2", 0600);
	cred_write("sec/SecurityToken", "T2\n", 0600);
	cred_write("sec/Expiration", "2099-01-01T00:00:00Z\n", 0600);
	expect(OSS(.secret_dir = dir), "A2 S2 T2", "secret directory");
	cred_write("sec/Expiration", "2001-01-01T00:00:00Z\n", 0600);
	assert_int_equal(cred_refused(OSS(.secret_dir = dir), "they expired at 2001-01-01T00:00:00"), EKEYEXPIRED);
	cred_write("sec/Expiration", "tomorrow\n", 0600);
	cred_refused(OSS(.secret_dir = dir), "not a time");
	cred_write("sec/AccessKeySecret", "SECRET123 x", 0600);
	cred_refused(OSS(.secret_dir = dir), "AccessKeySecret: the value has a blank");
	assert_int_equal(cred_refused(OSS(.secret_dir = cred_path("absent")), "absent: No such file"), ENOENT);
	free((void *)(uintptr_t)dir);
}

static void kubernetes_directory(void **state)
{
	(void)state;
	cred_write("vol/..v1/akId", "A1", 0600);
	cred_write("vol/..v1/akSecret", "S1", 0600);
	assert_int_equal(symlink("..v1", cred_path("vol/..data")), 0);
	assert_int_equal(symlink("..data/akId", cred_path("vol/akId")), 0);
	assert_int_equal(symlink("..data/akSecret", cred_path("vol/akSecret")), 0);
	expect(OSS(.secret_dir = cred_path("vol")), "A1 S1 ", "secret directory");
}

static void processes(void **state)
{
	(void)state;
#define OK_JSON \
	"'{\"AccessKeyId\":\"A\",\"AccessKeySecret\":\"SECRET123\",\"SecurityToken\":\"T\",\"Expiration\":\"2099-01-01T00:00:00Z\"}'"
	expect(OSS(.process = "echo " OK_JSON), "A SECRET123 T", "credential process echo");
	cred_refused(OSS(.process = "echo " OK_JSON "; exit 3"), "it ended with status 3");
	cred_refused(OSS(.process = "/nowhere/tool SECRET123 2>/dev/null"), "status 127 (command not found)");
	cred_refused(OSS(.process = "kill -9 $$"), "ended by signal 9");
	cred_refused(OSS(.process = "true"), "the answer is empty");
	cred_refused(OSS(.process = "echo SECRET123"), "not a JSON object");
	cred_refused(OSS(.process = "yes " OK_JSON), "prints too much");
	cred_refused(
		OSS(.process =
			    "echo '{\"AccessKeyId\":\"A\",\"AccessKeySecret\":\"SECRET123\",\"Expiration\":\"2001-01-01T00:00:00Z\"}'"),
		"they expired");
}

/* The child gets standard input, output and error, our environment, no blocked signals, and a process group to be ended by. */
static void process_surroundings(void **state)
{
	(void)state;
	char command[1024];
	sigset_t usr, old;
	sigemptyset(&usr);
	sigaddset(&usr, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr, &old);
	signal(SIGCHLD, SIG_IGN);
	CST_AUTO_CLOSE int leak = open("/dev/null", O_RDONLY); /* inheritable on purpose */
	assert_int_equal(dup2(leak, 77), 77);
	setenv("CRED_TEST", "seen", 1);
	snprintf(
		command, sizeof(command),
		"( ls /proc/self/fd | wc -l; test -e /proc/$$/fd/77 && echo leak; grep SigBlk /proc/$$/status; echo $CRED_TEST; "
		"tr '\\0' '\\n' </proc/$$/environ | grep -c SECRET; read x || echo eof ) >%s; echo " OK_JSON,
		cred_path("out"));
	setenv("CRED_TEST_SECRET", "x", 1);
	expect(OSS(.process = command), "A SECRET123 T", "credential process");
	unsetenv("CRED_TEST_SECRET");
	signal(SIGCHLD, SIG_DFL);
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(77);
	char text[512] = "";
	CST_AUTO_CLOSE int fd = open(cred_path("out"), O_RDONLY | O_CLOEXEC);
	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	assert_non_null(strstr(text, "SigBlk:\t0000000000000000\n"));
	assert_non_null(strstr(text, "seen\n1\neof\n"));
	assert_null(strstr(text, "leak"));
}

static void process_that_hangs_is_ended_with_its_children(void **state)
{
	(void)state;
	struct cst_cred_provider *p = NULL;
	struct cst_error err = CST_ERROR_INIT;
	char command[300];
	snprintf(command, sizeof(command), "sleep 1000 & echo $! >%s; wait", cred_path("pid"));
	assert_int_equal(cst_cred_process_new(command, &p, &err), 0);
	struct cst_credential cred = {0};
	struct cst_cred_call call = {.deadline = cst_now() + CST_NS_PER_S};
	assert_int_equal(p->ops->fetch(p, &call, &cred, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.why, "it didn't end in time"));
	char text[32] = "";
	CST_AUTO_CLOSE int fd = open(cred_path("pid"), O_RDONLY | O_CLOEXEC);
	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	pid_t child = (pid_t)strtol(text, NULL, 10);
	assert_true(child > 1);
	char stat[64];
	snprintf(stat, sizeof(stat), "/proc/%d/cmdline", child);
	/* Gone, or a zombie of init's that has no command line any more. */
	char line[64];
	for (int i = 0; i < 2000; i++) {
		CST_AUTO_CLOSE int proc = open(stat, O_RDONLY | O_CLOEXEC);
		if (proc < 0 || read(proc, line, sizeof(line)) <= 0)
			break;
		cst_sleep(10 * CST_NS_PER_MS);
		assert_true(i < 1999);
	}
	p->ops->free(p);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, cred_home_setup, cred_home_teardown)
	const struct CMUnitTest tests[] = {
		TEST(nothing_anywhere),
		TEST(anonymous),
		TEST(environment),
		TEST(passwd_file_modes),
		TEST(passwd_file_contents),
		TEST(passwd_file_in_home),
		TEST(ossutil_files),
		TEST(aws_files),
		TEST(endpoints),
		TEST(secret_directories),
		TEST(kubernetes_directory),
		TEST(processes),
		TEST(process_surroundings),
		TEST(process_that_hangs_is_ended_with_its_children),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
