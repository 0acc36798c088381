#define CST_LOG_AREA "cli"
#include "base/clock.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/signals.h"
#include "store/store.h"

#include <errno.h>

struct store_options {
#define OPTION CST_OPTION_MEMBER
#define SECTION(title)
#include "cli/store_options.def"
#undef OPTION
	struct {
#define OPTION CST_OPTION_GIVEN
#include "cli/store_options.def"
#undef OPTION
#undef SECTION
	} given;
};

static const struct cst_option store_rows[] = {
#define OPTION(...) CST_OPTION_ROW(store_options, __VA_ARGS__)
#define SECTION CST_OPTION_SECTION_ROW
#include "cli/store_options.def"
#undef OPTION
#undef SECTION
};
static const struct cst_option_table store_table = {store_rows, CST_ARRAY_LEN(store_rows), "cistern store", false};

#define STOP_GRACE (5 * CST_NS_PER_S)

static bool is_loopback(const char *address)
{
	return strncmp(address, "127.", 4) == 0 || strncmp(address, "[::1]:", 6) == 0 ||
	       strncmp(address, "localhost:", 10) == 0 || strncmp(address, "unix:", 5) == 0;
}

static int check(struct store_options *o, struct cst_error *err)
{
	if (o->listen.count == 0)
		cst_option_list_add(&o->listen, cst_xstrdup("127.0.0.1:9000"));
	if (o->anonymous && o->keys) {
		cst_error_set(err, EINVAL, "--anonymous and --keys exclude each other");
		cst_error_hint(err, "leave one of them out");
		return -EINVAL;
	}
	for (size_t i = 0; i < o->listen.count && !o->anonymous && !o->keys; i++) {
		if (is_loopback(o->listen.items[i]))
			continue;
		cst_error_set(err, EINVAL, "%s would serve other machines without access keys", o->listen.items[i]);
		cst_error_hint(err, "give --keys FILE, or --anonymous if everybody may read and write");
		return -EINVAL;
	}
	if (!o->tls_cert != !o->tls_key) {
		cst_error_set(err, EINVAL, "--tls-cert and --tls-key go together");
		cst_error_hint(err, "give both for https, or none");
		return -EINVAL;
	}
	return 0;
}

static int start_log(const struct store_options *o, struct cst_error *err)
{
	struct cst_log_config log = {.json = o->log_format == 1, .path = o->log_file};
	if (cst_log_parse_level(o->log_level, &log.level) != 0) {
		cst_error_set(err, EINVAL, "bad value \"%s\" for --log-level", o->log_level);
		cst_error_hint(err, "one of error, warn, info, debug, trace");
		return -EINVAL;
	}
	return cst_log_init(&log, err);
}

/* Scripts read these lines: with port 0 they tell the port. */
static void announce(const struct cst_store *store, const struct store_options *o, const char *dir)
{
	for (unsigned i = 0; i < o->listen.count; i++) {
		char address[256];
		cst_store_address(store, i, address, sizeof(address));
		bool is_unix = strncmp(address, "unix:", 5) == 0;
		printf("listening on %s%s\n", is_unix ? "" : o->tls_cert ? "https://" : "http://", address);
	}
	printf("serving %s, %s\n", dir, o->keys ? "requests signed by known keys only" : "without access keys");
	fflush(stdout);
}

static int serve(const struct store_options *o, const char *dir)
{
	struct cst_store_config config = {
		.dir = dir,
		.addresses = (const char *const *)o->listen.items,
		.address_count = o->listen.count,
		.anonymous = !o->keys,
		.keys_file = o->keys,
		.region = o->region,
		.domains = (const char *const *)o->domain.items,
		.domain_count = o->domain.count,
		.tls_cert = o->tls_cert,
		.tls_key = o->tls_key,
		.latency = o->latency,
		.bandwidth = o->bandwidth,
		.total_bandwidth = o->total_bandwidth,
		.faults = (const char *const *)o->fail.items,
		.fault_count = o->fail.count,
		.fault_seed = (uint64_t)o->fail_seed,
		.max_connections = (unsigned)o->max_connections,
		.max_workers = (unsigned)o->max_workers,
	};
	struct cst_error err = CST_ERROR_INIT;
	struct cst_store *store = NULL;
	cst_signals_block();
	if (cst_store_start(&config, &store, &err) != 0)
		return cst_cli_fail(&err, CST_EXIT_FAILED);
	announce(store, o, dir);
	cst_signals_wait();
	cst_store_stop(store, STOP_GRACE);
	return CST_EXIT_OK;
}

static int run(int argc, char **argv)
{
	struct store_options o;
	struct cst_option_set set;
	struct cst_error err = CST_ERROR_INIT;
	int status;
	if (cst_cli_parse(&cst_command_store, &set, &o, sizeof(o), argc, argv, 1, 1, &status)) {
		if (check(&o, &err) != 0 || start_log(&o, &err) != 0)
			status = cst_cli_fail(&err, CST_EXIT_USAGE);
		else
			status = serve(&o, set.arguments.items[0]);
	}
	cst_option_set_fini(&set);
	return status;
}

const struct cst_command cst_command_store = {
	.name = "store",
	.synopsis = "DIR [--listen ADDR:PORT] [--anonymous | --keys FILE] [options]",
	.summary = "Serve a directory as an object store that speaks OSS and S3",
	.description =
		"The folders of DIR are the buckets and the files in them are objects at once; DIR is made when it is missing. Requests of "
		"the OSS and of the S3 protocol are understood on the same address, with the bucket in the host name or in the path. What "
		"was answered 200 survives a crash of the machine.\n\n"
		"The first lines on standard output tell the addresses. GET /-/stats answers counts of requests and bytes as JSON; POST "
		"/-/stats/reset starts them anew.\n\n"
		"SIGTERM and SIGINT end it after the requests under way (5 seconds at most); SIGHUP reopens the log file.",
	.examples = "cistern store ./objects --listen 127.0.0.1:9000\n"
		    "Serves ./objects to this machine. oss://photos is the folder ./objects/photos.\n\n"
		    "cistern store ./objects --listen :9000 --keys ./keys --tls-cert c.pem --tls-key k.pem\n"
		    "Serves other machines over https; the file has lines ACCESS_KEY:SECRET.\n\n"
		    "cistern store ./objects --latency 20ms --bandwidth 90MiB --fail 0.01:503\n"
		    "Behaves like a store that is far away and sometimes overloaded.\n",
	.options = &store_table,
	.run = run,
};
