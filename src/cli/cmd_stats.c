#include "cli/cli.h"
#include "cli/control.h"

#include <errno.h>
#include <jansson.h>

struct stats_options {
	bool json, metrics;
	struct {
		uint8_t json, metrics;
	} given;
};

static const struct cst_option stats_rows[] = {
	CST_OPTION_ROW(stats_options, json, BOOL, "", NULL, 0, 0, NULL, 0, "Write JSON.")
		CST_OPTION_ROW(stats_options, metrics, BOOL, "", NULL, 0, 0, NULL, 0,
			       "Write the metrics of the process as Prometheus text.")};
static const struct cst_option_table stats_table = {stats_rows, CST_ARRAY_LEN(stats_rows), "cistern stats", false};

static void print_value(const char *name, const json_t *value, int indent)
{
	if (json_is_string(value))
		printf("%*s%-*s %s\n", indent, "", 22 - indent, name, json_string_value(value));
	else if (json_is_integer(value))
		printf("%*s%-*s %lld\n", indent, "", 22 - indent, name, (long long)json_integer_value(value));
}

static void print_text(json_t *root)
{
	const char *name, *inner;
	json_t *value, *field;
	json_object_foreach (root, name, value) {
		print_value(name, value, 0);
		if (!json_is_object(value))
			continue;
		printf("%s\n", name);
		json_object_foreach (value, inner, field)
			print_value(inner, field, 2);
	}
}

static int print_stats(const char *mountpoint, const struct stats_options *o, struct cst_error *err)
{
	CST_AUTO_BUF body = CST_BUF_INIT;
	int rc = cst_control_get(mountpoint, o->metrics ? "/metrics" : "/stats", &body, err);
	if (rc != 0)
		return rc;
	if (o->json || o->metrics) {
		fwrite(body.data, 1, body.len, stdout);
		return 0;
	}
	json_error_t why;
	json_t *root = json_loadb(body.data, body.len, 0, &why);
	if (!root) {
		cst_error_set(err, EBADMSG, "the mount on %s gave an answer that is not JSON", mountpoint);
		cst_error_why(err, "%s", why.text);
		return -EBADMSG;
	}
	print_text(root);
	json_decref(root);
	return 0;
}

static int run(int argc, char **argv)
{
	struct stats_options o;
	struct cst_option_set set;
	struct cst_error err = CST_ERROR_INIT;
	int status;
	if (cst_cli_parse(&cst_command_stats, &set, &o, sizeof(o), argc, argv, 1, 1, &status) &&
	    print_stats(set.arguments.items[0], &o, &err) != 0)
		status = cst_cli_fail(&err, CST_EXIT_FAILED);
	cst_option_set_fini(&set);
	return status;
}

const struct cst_command cst_command_stats = {
	.name = "stats",
	.synopsis = "MOUNTPOINT [--json | --metrics]",
	.summary = "Tell what a mount has done: requests, bytes, memory, connections",
	.description =
		"Asks the process that serves MOUNTPOINT through its control socket, which only the user who mounted may use.",
	.examples =
		"cistern stats /mnt/data\nPrints a table.\n\ncistern stats /mnt/data --json\nPrints the same for programs.\n",
	.options = &stats_table,
	.run = run,
};
