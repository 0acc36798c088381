/* Credentials over HTTP: metadata services and STS, against a server that plays them. */
#include "test_cred_common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define OSS(...) (&(struct cst_credentials_config){.cloud = CST_CLOUD_OSS, .bucket = "b", __VA_ARGS__})

/* What the service does; tests change it between requests. */
struct service {
	bool ec2;
	int token_status; /* 200, or how the token call is refused */
	int session;	  /* the number of the session token that is good now */
	int role_status;
	const char *role, *answer;
	int fail_first; /* so many 503s first */
	int tokens_made, without_token;
};

static int metadata(void *arg, const struct cred_request *req, struct cst_buf *body)
{
	struct service *s = arg;
	char good[64];
	const char *base =
		s->ec2 ? "/latest/meta-data/iam/security-credentials/" : "/latest/meta-data/ram/security-credentials/";
	if (s->fail_first > 0) {
		s->fail_first--;
		return 503;
	}
	if (strcmp(req->target, "/latest/api/token") == 0) {
		const char *ttl = s->ec2 ? "X-aws-ec2-metadata-token-ttl-seconds: 21600"
					 : "X-aliyun-ecs-metadata-token-ttl-seconds: 21600";
		if (s->token_status != 200)
			return s->token_status;
		if (strcmp(req->method, "PUT") != 0 || !cred_has_header(req, ttl))
			return 400;
		s->tokens_made++;
		cst_buf_printf(body, "session-%d\n", s->session);
		return 200;
	}
	snprintf(good, sizeof(good), "%s: session-%d",
		 s->ec2 ? "X-aws-ec2-metadata-token" : "X-aliyun-ecs-metadata-token", s->session);
	if (s->token_status == 200 && !cred_has_header(req, good)) {
		s->without_token++;
		return 401;
	}
	if (strcmp(req->target, base) == 0) {
		cst_buf_printf(body, "%s\n", s->role);
		return 200;
	}
	if (strncmp(req->target, base, strlen(base)) != 0 || strcmp(req->target + strlen(base), s->role) != 0)
		return 404;
	cst_buf_add_str(body, s->answer);
	return s->role_status ? s->role_status : 200;
}

#define ECS_ANSWER                                                                                                                      \
	"{\"AccessKeyId\":\"STS.A\",\"AccessKeySecret\":\"SECRET123\",\"Expiration\":\"2099-01-01T00:00:00Z\",\"SecurityToken\":\"T\"," \
	"\"LastUpdated\":\"2026-01-01T00:00:00Z\",\"Code\":\"Success\"}"

static void accept_and_free(const struct cst_credentials_config *config, const char *credential, const char *source)
{
	struct cst_credentials *c = cred_accepted(config, credential);
	assert_string_equal(cst_credentials_source(c), source);
	cst_credentials_free(c);
}

static void ecs_role(void **state)
{
	(void)state;
	struct service s = {.token_status = 200, .role = "demo", .answer = ECS_ANSWER};
	struct cred_mock *m = cred_mock_new(NULL, 0, metadata, &s);
	accept_and_free(OSS(.ram_role = "demo", .metadata_endpoint = cred_mock_url(m)), "STS.A SECRET123 T",
			"ECS RAM role demo");
	assert_int_equal(s.tokens_made, 1);
	assert_int_equal(s.without_token, 0);
	/* The service tells the name; "auto" is the spelling of other tools. */
	accept_and_free(OSS(.ram_role = "", .metadata_endpoint = cred_mock_url(m)), "STS.A SECRET123 T",
			"ECS RAM role demo");
	accept_and_free(OSS(.ram_role = "auto", .metadata_endpoint = cred_mock_url(m)), "STS.A SECRET123 T",
			"ECS RAM role demo");
	assert_int_equal(
		cred_refused(OSS(.ram_role = "other", .metadata_endpoint = cred_mock_url(m)), "attach the role"),
		ENOENT);
	s.answer = "{\"Code\":\"Failed\"}";
	assert_int_equal(cred_refused(OSS(.ram_role = "demo", .metadata_endpoint = cred_mock_url(m)), "code Failed"),
			 EACCES);
	s.role_status = 403;
	assert_int_equal(
		cred_refused(OSS(.ram_role = "demo", .metadata_endpoint = cred_mock_url(m)), "HTTP status 403"),
		EACCES);
	cred_mock_free(m);
	cred_refused(OSS(.ram_role = "a/../b"), "can't use this instance role");
	cred_refused(OSS(.ram_role = "a b"), "can't use this instance role");
}

static void service_without_session_tokens(void **state)
{
	(void)state;
	static const int refusals[] = {404, 403, 405};
	for (size_t i = 0; i < CST_ARRAY_LEN(refusals); i++) {
		struct service s = {.token_status = refusals[i], .role = "demo", .answer = ECS_ANSWER};
		struct cred_mock *m = cred_mock_new(NULL, 0, metadata, &s);
		accept_and_free(OSS(.ram_role = "demo", .metadata_endpoint = cred_mock_url(m)), "STS.A SECRET123 T",
				"ECS RAM role demo");
		assert_int_equal(cred_mock_requests(m), 2);
		cred_mock_free(m);
	}
	/* Another refusal is none of these: the service is sick, and falling back would hide that. */
	struct service s = {.token_status = 400, .role = "demo", .answer = ECS_ANSWER};
	struct cred_mock *m = cred_mock_new(NULL, 0, metadata, &s);
	cred_refused(OSS(.ram_role = "demo", .metadata_endpoint = cred_mock_url(m)), "HTTP status 400");
	cred_mock_free(m);
}

static void session_token_is_kept_and_renewed(void **state)
{
	(void)state;
	struct service s = {.token_status = 200, .role = "demo", .answer = ECS_ANSWER};
	struct cred_mock *m = cred_mock_new(NULL, 0, metadata, &s);
	struct cst_cred_provider *p = NULL;
	struct cst_error err = CST_ERROR_INIT;
	struct cst_cred_call call = {.deadline = INT64_MAX};
	struct cst_credential cred = {0};
	assert_int_equal(cst_cred_metadata_new(OSS(.metadata_endpoint = cred_mock_url(m)), "demo", &p, &err), 0);
	assert_int_equal(p->ops->fetch(p, &call, &cred, &err), 0);
	assert_int_equal(p->ops->fetch(p, &call, &cred, &err), 0);
	assert_int_equal(s.tokens_made, 1);
	s.session = 1; /* the old one has ended */
	assert_int_equal(p->ops->fetch(p, &call, &cred, &err), 0);
	assert_int_equal(s.tokens_made, 2);
	assert_int_equal(s.without_token, 1);
	/* A service that is busy is asked again. */
	s.fail_first = 2;
	assert_int_equal(p->ops->fetch(p, &call, &cred, &err), 0);
	s.fail_first = 3;
	assert_int_equal(p->ops->fetch(p, &call, &cred, &err), -EIO);
	assert_non_null(strstr(err.why, "HTTP status 503"));
	p->ops->free(p);
	cred_mock_free(m);
}

static void ec2_role(void **state)
{
	(void)state;
	struct service s = {
		.ec2 = true,
		.token_status = 200,
		.role = "web",
		.answer = "{\"Code\":\"Success\",\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\",\"Token\":\"T\","
			  "\"Expiration\":\"2099-01-01T00:00:00Z\"}"};
	struct cred_mock *m = cred_mock_new(NULL, 0, metadata, &s);
	accept_and_free((&(struct cst_credentials_config){
				.cloud = CST_CLOUD_S3, .ram_role = "", .metadata_endpoint = cred_mock_url(m)}),
			"A S T", "EC2 instance role web");
	cred_mock_free(m);
}

static int plain_url(void *arg, const struct cred_request *req, struct cst_buf *body)
{
	(void)arg;
	if (strcmp(req->method, "GET") != 0 || strcmp(req->target, "/creds?key=SECRET123") != 0)
		return 400;
	cst_buf_add_str(body, ECS_ANSWER);
	return 200;
}

/* A URL is asked as it is; the proxy of the environment has no business with it. */
static void role_as_url(void **state)
{
	(void)state;
	struct cred_mock *m = cred_mock_new(NULL, 0, plain_url, NULL);
	char url[128];
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	snprintf(url, sizeof(url), "%s/creds?key=SECRET123", cred_mock_url(m));
	struct cst_credentials *c = cred_accepted(OSS(.ram_role = url), "STS.A SECRET123 T");
	assert_null(strstr(cst_credentials_source(c), "SECRET123"));
	cst_credentials_free(c);
	snprintf(url, sizeof(url), "%s/bad?key=SECRET123", cred_mock_url(m));
	cred_refused(OSS(.ram_role = url), "/bad answered HTTP status 400");
	cred_mock_free(m);
	cred_refused(OSS(.ram_role = url), "can't get credentials from http://127.0.0.1:");
}

static int stall(void *arg, const struct cred_request *req, struct cst_buf *body)
{
	(void)arg, (void)req, (void)body;
	return CRED_MOCK_STALL;
}

static void silent_service(void **state)
{
	(void)state;
	struct cred_mock *m = cred_mock_new(NULL, 0, stall, NULL);
	assert_int_equal(
		cred_refused(OSS(.ram_role = "demo", .metadata_endpoint = cred_mock_url(m)), "name another source"),
		ETIMEDOUT);
	cred_mock_free(m);
}

static int flood(void *arg, const struct cred_request *req, struct cst_buf *body)
{
	(void)arg, (void)req;
	char *room = cst_buf_room(body, CST_SECRET_SOURCE_MAX + 1);
	memset(room, 'x', CST_SECRET_SOURCE_MAX + 1);
	body->len += CST_SECRET_SOURCE_MAX + 1;
	return 200;
}

static void endless_answer(void **state)
{
	(void)state;
	struct cred_mock *m = cred_mock_new(NULL, 0, flood, NULL);
	cred_refused(OSS(.ram_role = "demo", .metadata_endpoint = cred_mock_url(m)), "larger than");
	cred_mock_free(m);
}

/* ---- STS ---- */

struct sts {
	int status;
	const char *answer;
	char target[1024], body[8192];
	bool form;
};

static int sts_answer(void *arg, const struct cred_request *req, struct cst_buf *body)
{
	struct sts *s = arg;
	snprintf(s->target, sizeof(s->target), "%s %s", req->method, req->target);
	snprintf(s->body, sizeof(s->body), "%s", req->body);
	s->form = cred_has_header(req, "Content-Type: application/x-www-form-urlencoded");
	cst_buf_add_str(body, s->answer);
	return s->status;
}

#define STS_ANSWER                                                                                                           \
	"{\"RequestId\":\"6894B13B\",\"OIDCTokenInfo\":{\"Subject\":\"system:x\"},\"Credentials\":{\"SecurityToken\":\"T\"," \
	"\"Expiration\":\"2099-01-01T00:00:00Z\",\"AccessKeySecret\":\"SECRET123\",\"AccessKeyId\":\"STS.A\"}}"

static void rrsa(void **state)
{
	(void)state;
	struct sts s = {.status = 200, .answer = STS_ANSWER};
	struct cred_mock *m = cred_mock_new(NULL, 0, sts_answer, &s);
	cred_write("token", "eyJ+/=.SECRET123\n", 0600);
	char *file = cst_xstrdup(cred_path("token"));
	struct cst_credentials_config config = {.role_arn = "acs:ram::1:role/demo",
						.oidc_provider_arn = "acs:ram::1:oidc-provider/ack",
						.oidc_token_file = file,
						.sts_endpoint = cred_mock_url(m)};
	setenv("ALIBABA_CLOUD_ROLE_SESSION_NAME", "pod 1", 1);
	accept_and_free(&config, "STS.A SECRET123 T", "RRSA role acs:ram::1:role/demo");
	assert_non_null(
		strstr(s.target, "POST /?Action=AssumeRoleWithOIDC&Format=JSON&Version=2015-04-01&Timestamp=20"));
	assert_null(strstr(s.target, "SECRET123"));
	assert_true(s.form);
	assert_string_equal(
		s.body, "RoleArn=acs%3Aram%3A%3A1%3Arole%2Fdemo&OIDCProviderArn=acs%3Aram%3A%3A1%3Aoidc-provider%2Fack&"
			"OIDCToken=eyJ%2B%2F%3D.SECRET123&RoleSessionName=pod%201&DurationSeconds=3600");
	/* The same from the variables that RRSA puts into a pod. */
	setenv("ALIBABA_CLOUD_ROLE_ARN", "acs:ram::1:role/env", 1);
	setenv("ALIBABA_CLOUD_OIDC_TOKEN_FILE", file, 1);
	cred_refused(OSS(.sts_endpoint = cred_mock_url(m)), "set ALIBABA_CLOUD_OIDC_PROVIDER_ARN");
	setenv("ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "acs:x", 1);
	accept_and_free(OSS(.sts_endpoint = cred_mock_url(m)), "STS.A SECRET123 T", "RRSA role acs:ram::1:role/env");
	s.answer =
		"<?xml version=\"1.0\"?><AssumeRoleWithOIDCResponse><Credentials><AccessKeyId>XA</AccessKeyId><AccessKeySecret>XS"
		"</AccessKeySecret><SecurityToken>XT</SecurityToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>"
		"</AssumeRoleWithOIDCResponse>";
	accept_and_free(&config, "XA XS XT", "RRSA role acs:ram::1:role/demo");
	cred_mock_free(m);
	free(file);
}

static void rrsa_refused(void **state)
{
	(void)state;
	struct sts s = {.status = 403,
			.answer = "{\"Code\":\"AuthenticationFail.OIDCToken.Expired\",\"RequestId\":\"ABC-1\","
				  "\"Message\":\"your token eyJ.SECRET123 is old\"}"};
	struct cred_mock *m = cred_mock_new(NULL, 0, sts_answer, &s);
	cred_write("token", "eyJ.SECRET123\n", 0600);
	char *file = cst_xstrdup(cred_path("token"));
	struct cst_credentials_config config = {
		.role_arn = "r", .oidc_provider_arn = "p", .oidc_token_file = file, .sts_endpoint = cred_mock_url(m)};
	assert_int_equal(cred_refused(&config, "code AuthenticationFail.OIDCToken.Expired (request id ABC-1)"), EACCES);
	s.answer = "{\"Code\":\"eyJ SECRET123\",\"RequestId\":5";
	cred_refused(&config, "HTTP status 403");
	s.status = 503;
	cred_refused(&config, "HTTP status 503");
	cred_write("token", "\n", 0600);
	cred_refused(&config, "the file is empty");
	unlink(file);
	assert_int_equal(cred_refused(&config, "can't read the OIDC token"), ENOENT);
	config.oidc_token_file = NULL;
	cred_refused(&config, "set ALIBABA_CLOUD_OIDC_TOKEN_FILE");
	cred_mock_free(m);
	free(file);
}

/* A profile that says "use the instance's role". */
static void role_named_by_profile(void **state)
{
	(void)state;
	struct service s = {.token_status = 200, .role = "demo", .answer = ECS_ANSWER};
	struct cred_mock *m = cred_mock_new(NULL, 0, metadata, &s);
	char text[256];
	cred_write(".ossutilconfig", "[default]\nmode=EcsRamRole\nregion=cn-hangzhou\n", 0600);
	struct cst_credentials *c = cred_accepted(OSS(.metadata_endpoint = cred_mock_url(m)), "STS.A SECRET123 T");
	assert_non_null(strstr(cst_credentials_source(c), "(ECS RAM role demo)"));
	cst_credentials_free(c);
	snprintf(text, sizeof(text),
		 "[Credentials]\nendpoint=e\n[AkService]\necsAk=%s/latest/meta-data/ram/security-credentials/demo\n",
		 cred_mock_url(m));
	cred_write(".ossutilconfig", text, 0600);
	cst_credentials_free(cred_accepted(OSS(.metadata_endpoint = cred_mock_url(m)), "STS.A SECRET123 T"));
	cred_mock_free(m);
}

/* ---- the real addresses, in a network namespace of our own ---- */

static int interface(const char *name, const char *address)
{
	struct ifreq req = {0};
	struct sockaddr_in in = {.sin_family = AF_INET};
	CST_AUTO_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", name);
	if (address) {
		inet_pton(AF_INET, address, &in.sin_addr);
		memcpy(&req.ifr_addr, &in, sizeof(in));
		if (ioctl(fd, SIOCSIFADDR, &req) < 0)
			return -errno;
	}
	if (ioctl(fd, SIOCGIFFLAGS, &req) < 0)
		return -errno;
	req.ifr_flags |= IFF_UP;
	return ioctl(fd, SIOCSIFFLAGS, &req) < 0 ? -errno : 0;
}

static int in_namespace(void)
{
	if (unshare(CLONE_NEWNET) < 0)
		return 77;
	if (interface("lo", NULL) < 0 || interface("lo:1", "100.100.100.200") < 0 ||
	    interface("lo:2", "169.254.169.254") < 0)
		return 77;
	struct service ecs = {.token_status = 200, .role = "demo", .answer = ECS_ANSWER};
	struct service ec2 = {.ec2 = true, .token_status = 200, .role = "demo", .answer = ECS_ANSWER};
	struct cred_mock *m = cred_mock_new("100.100.100.200", 80, metadata, &ecs);
	struct cred_mock *n = cred_mock_new("169.254.169.254", 80, metadata, &ec2);
	accept_and_free(OSS(.ram_role = "demo"), "STS.A SECRET123 T", "ECS RAM role demo");
	accept_and_free(OSS(.ram_role = "http://100.100.100.200/latest/meta-data/ram/security-credentials/demo"),
			"STS.A SECRET123 T",
			"credentials of http://100.100.100.200/latest/meta-data/ram/security-credentials/demo");
	accept_and_free((&(struct cst_credentials_config){.cloud = CST_CLOUD_S3, .ram_role = ""}), "STS.A SECRET123 T",
			"EC2 instance role demo");
	cred_mock_free(m);
	cred_mock_free(n);
	return 0;
}

static void well_known_addresses(void **state)
{
	(void)state;
	int status;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(in_namespace()); /* a failed assertion ends the child with another status */
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, cred_home_setup, cred_home_teardown)
	const struct CMUnitTest tests[] = {
		TEST(ecs_role),
		TEST(service_without_session_tokens),
		TEST(session_token_is_kept_and_renewed),
		TEST(ec2_role),
		TEST(role_as_url),
		TEST(silent_service),
		TEST(endless_answer),
		TEST(rrsa),
		TEST(rrsa_refused),
		TEST(role_named_by_profile),
		TEST(well_known_addresses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
