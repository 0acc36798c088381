/* The embedded object store: an OSS- and S3-compatible HTTP server over a directory, with one folder a bucket. What the
 * command line, tests and other parts of the program start and stop; the inside is in handler.h.
 *
 * Start, address and stop belong to one thread (the starter's). The configuration is copied. */
#pragma once

#include "base/error.h"

struct cst_store;

struct cst_store_config {
	const char *dir;	      /* buckets are its folders; made when missing */
	const char *const *addresses; /* "127.0.0.1:9000", "[::1]:0", ":9000", "unix:/path"; at least one */
	size_t address_count;
	bool anonymous;	       /* serve everybody; else keys_file is required */
	const char *keys_file; /* access keys (format: keys.h); NULL with anonymous: signatures are not checked */
	const char *region;    /* NULL: "local" is told, and signatures of every region are accepted */
	/* Virtual-host style: HOST in "BUCKET.HOST". "localhost" always counts, and so does every Host whose first
	 * label is an existing bucket. */
	const char *const *domains;
	size_t domain_count;
	const char *tls_cert, *tls_key; /* PEM files; both or neither */

	/* How far away and how well the store is. */
	int64_t latency;	   /* ns before the first byte of each answer */
	uint64_t bandwidth;	   /* bytes per second of response bodies on each connection; 0: no limit */
	uint64_t total_bandwidth;  /* the same over all connections */
	const char *const *faults; /* "RATE:KIND[:OPERATION]", KIND 503|reset|short|slow|etag|lost */
	size_t fault_count;
	uint64_t fault_seed;

	unsigned max_connections; /* 0: 10000 */
	unsigned max_workers;	  /* 0: 512 */
};

/* Starts listening and serving. 0 and *store, or -errno with err filled in. */
int cst_store_start(const struct cst_store_config *config, struct cst_store **store, struct cst_error *err);
/* The bound address of addresses[index], "host:port" or "unix:/path". */
void cst_store_address(const struct cst_store *store, unsigned index, char *out, size_t size);
/* Lets running requests finish for `grace_ns`, then ends them, and frees everything. NULL is allowed. */
void cst_store_stop(struct cst_store *store, int64_t grace_ns);
