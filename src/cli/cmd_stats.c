#include "base/units.h"
#include "cli/cli.h"
#include "cli/control.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

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

#define NAME_WIDTH 22

/* Are these bytes? */
static bool is_size(const char *name)
{
	static const char *const sizes[] = {"memory_limit", "memory_used", "memory_peak", "quota", "used", "bytes"};
	if (strstr(name, "bytes_") == name || (strlen(name) > 6 && strcmp(name + strlen(name) - 6, "_bytes") == 0))
		return true;
	for (size_t i = 0; i < CST_ARRAY_LEN(sizes); i++)
		if (strcmp(name, sizes[i]) == 0)
			return true;
	return false;
}

static void print_value(const char *name, const json_t *value, int indent)
{
	int width = NAME_WIDTH - indent;
	long long number = json_integer_value(value);
	char size[CST_SIZE_TEXT];
	if (json_is_string(value)) {
		printf("%*s%-*s %s\n", indent, "", width, name, json_string_value(value));
	} else if (json_is_boolean(value)) {
		printf("%*s%-*s %s\n", indent, "", width, name, json_is_true(value) ? "yes" : "no");
	} else if (json_is_real(value)) {
		printf("%*s%-*s %.1f\n", indent, "", width, name, json_real_value(value));
	} else if (json_is_integer(value) && is_size(name) && number >= 1024) {
		cst_format_size((uint64_t)number, size);
		printf("%*s%-*s %s (%lld)\n", indent, "", width, name, size, number);
	} else if (json_is_integer(value)) {
		printf("%*s%-*s %lld\n", indent, "", width, name, number);
	}
}

static void print_fields(json_t *object, int indent);

static void print_list(const char *name, json_t *list, int indent)
{
	size_t i;
	json_t *item;
	json_array_foreach(list, i, item)
	{
		printf("%*s%s %zu\n", indent, "", name, i);
		print_fields(item, indent + 2);
	}
}

/* "memory 1.20GiB 63.0 %": where the bytes that were read came from. */
static void print_sources(json_t *sources)
{
	const char *name;
	json_t *source;
	printf("sources of what was read\n");
	json_object_foreach (sources, name, source) {
		char size[CST_SIZE_TEXT];
		cst_format_size((uint64_t)json_integer_value(json_object_get(source, "bytes")), size);
		printf("  %-*s %s, %.1f %%\n", NAME_WIDTH - 2, name, size,
		       json_real_value(json_object_get(source, "percent")));
	}
}

static void print_fields(json_t *object, int indent)
{
	const char *name;
	json_t *value;
	json_object_foreach (object, name, value) {
		if (json_is_array(value)) {
			print_list(strcmp(name, "levels") == 0 ? "level" : "load", value, indent);
		} else if (strcmp(name, "sources") == 0) {
			print_sources(value);
		} else if (json_is_object(value)) {
			printf("%*s%s\n", indent, "", name);
			print_fields(value, indent + 2);
		} else if (strcmp(name, "level") != 0) { /* its heading has it */
			print_value(name, value, indent);
		}
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
	print_fields(root, 0);
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
	.summary = "Tell what a mount has done: requests, bytes, memory, cache levels, opens by mode",
	.description =
		"Asks the process that serves MOUNTPOINT through its control socket, which only the user who mounted may use.\n\n"
		"passthrough tells whether the kernel reads wholly cached files by itself, and if not why; such reads are counted nowhere. opens "
		"tells how files were opened: passthrough, page_cache, or direct_io. sources tells where the bytes that were read came from: memory, "
		"a level of the cache on disk, or the origin (the store).\n\n"
		"Each level of the cache has its state, quota and use; hits are blocks that were read from it, evicted, demoted and promoted count "
		"objects that were dropped, moved down, and moved up into it; stops_high and stops_low how often making room began and was done; corrupt "
		"blocks that failed their checksum and were fetched again. owner is yes in the one process of all that share the directory which "
		"keeps the index.",
	.examples =
		"cistern stats /mnt/data\nPrints a table.\n\ncistern stats /mnt/data --json\nPrints the same for programs.\n",
	.options = &stats_table,
	.run = run,
};
