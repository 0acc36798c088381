/* From targets to names: one request at a time, a page after the other, no more than are soon begun. */
#define CST_LOG_AREA "load"
#include "base/log.h"
#include "cache/load_private.h"

#include <errno.h>

struct cst_load_name *cst_load_name_new(struct cst_slice key, const char *etag, uint64_t size)
{
	struct cst_load_name *n = cst_xcalloc(1, sizeof(*n) + key.len + 1);
	n->size = size;
	snprintf(n->etag, sizeof(n->etag), "%s", etag);
	n->key_len = key.len;
	memcpy(n->key, key.data ? key.data : "", key.len);
	return n;
}

static void names_free(struct cst_load_names *names)
{
	struct cst_load_name *n;
	while ((n = STAILQ_FIRST(names))) {
		STAILQ_REMOVE_HEAD(names, link);
		free(n);
	}
}

void cst_lister_init(struct cst_load *load)
{
	STAILQ_INIT(&load->lister.page);
	STAILQ_INIT(&load->names);
}

void cst_lister_fini(struct cst_load *load)
{
	struct cst_lister *l = &load->lister;
	names_free(&l->page);
	names_free(&load->names);
	cst_buf_fini(&l->literal);
	free(l->prefix);
	free(l->token);
	free(l->next_token);
}

/* ---- callbacks ---- */

static void page_done(struct cst_load *load, int rc, const struct cst_error *err)
{
	struct cst_lister *l = &load->lister;
	l->rc = rc;
	if (rc < 0 && err)
		l->err = *err;
	pthread_mutex_lock(&load->lock);
	load->page_done = true;
	pthread_cond_signal(&load->wake);
	pthread_mutex_unlock(&load->lock);
}

static void page_add(struct cst_lister *l, struct cst_slice key, const char *etag, uint64_t size)
{
	struct cst_load_name *n = cst_load_name_new(key, etag, size);
	STAILQ_INSERT_TAIL(&l->page, n, link);
	l->page_count++;
	l->page_bytes += size;
}

static void listed(void *arg, const struct cst_object_list_entry *entry)
{
	struct cst_load *load = arg;
	struct cst_lister *l = &load->lister;
	const struct cst_object_info *info = &entry->info;
	/* A folder's own object has no bytes. */
	bool folder = info->size == 0 && info->key.len > 0 && info->key.data[info->key.len - 1] == '/';
	if (entry->is_prefix || folder || (l->pattern && !cst_glob_match(l->pattern, info->key)))
		return;
	page_add(l, info->key, info->etag, info->size);
}

static void list_restart(void *arg)
{
	struct cst_load *load = arg;
	names_free(&load->lister.page);
	load->lister.page_count = load->lister.page_bytes = 0;
}

static void list_done(void *arg, int rc, const struct cst_object_list_page *page, const struct cst_error *err)
{
	struct cst_load *load = arg;
	struct cst_lister *l = &load->lister;
	l->truncated = rc == 0 && page->truncated;
	if (l->truncated)
		l->next_token = cst_xstrndup(page->next_token.data, page->next_token.len);
	page_done(load, rc, err);
}

static void asked(void *arg, int rc, const struct cst_object_info *info, const struct cst_error *err)
{
	struct cst_load *load = arg;
	struct cst_lister *l = &load->lister;
	l->truncated = false;
	if (rc == 0)
		page_add(l, cst_buf_slice(&l->literal), info->etag, info->size);
	page_done(load, rc, err);
}

/* ---- requests ---- */

static void start_page(struct cst_load *load)
{
	static const struct cst_object_list_ops ops = {listed, list_restart, list_done};
	struct cst_lister *l = &load->lister;
	struct cst_object_list list = {
		.prefix = cst_slice_of(l->prefix), .token = cst_slice_of(l->token), .max_keys = 1000};
	l->op = cst_object_list(load->config.bucket, &list, &ops, load);
}

static void start_target(struct cst_load *load)
{
	struct cst_lister *l = &load->lister;
	const char *text = load->targets[l->target];
	cst_buf_clear(&l->literal);
	const char *rest = cst_glob_literal(text, &l->literal);
	l->pattern = *rest ? text : NULL;
	l->found = 0;
	if (l->pattern || l->literal.len == 0 || l->literal.data[l->literal.len - 1] == '/') {
		l->prefix = cst_xstrndup(l->literal.len ? l->literal.data : "", l->literal.len);
		start_page(load);
	} else {
		l->op = cst_object_head(load->config.bucket, cst_buf_slice(&l->literal), true, asked, load);
	}
}

void cst_lister_step(struct cst_load *load)
{
	struct cst_lister *l = &load->lister;
	if (l->flying || l->over)
		return;
	if (l->target == load->config.target_count) {
		l->over = true;
		return;
	}
	l->flying = true;
	if (l->prefix)
		start_page(load);
	else
		start_target(load);
}

static void nothing_found(struct cst_load *load)
{
	struct cst_error err = CST_ERROR_INIT;
	const char *text = load->targets[load->lister.target];
	cst_error_set(&err, ENOENT, "nothing to load");
	cst_error_why(&err, "no object is called \"%s\" or lies below it", text);
	cst_load_failed(load, cst_slice_of(text), &err);
}

static void next_target(struct cst_load *load)
{
	struct cst_lister *l = &load->lister;
	if (l->found == 0)
		nothing_found(load);
	free(l->prefix);
	l->prefix = NULL;
	l->target++;
}

int cst_lister_take(struct cst_load *load)
{
	struct cst_lister *l = &load->lister;
	cst_object_release(l->op);
	l->op = NULL;
	l->flying = false;
	free(l->token);
	l->token = cst_steal(l->next_token);
	if (l->rc == -ENOENT && !l->prefix) {
		/* No object: then a folder, if anything. */
		cst_buf_add_char(&l->literal, '/');
		l->prefix = cst_xstrndup(l->literal.data, l->literal.len);
		return 0;
	}
	if (l->rc != 0)
		return l->rc;
	l->found += l->page_count;
	pthread_mutex_lock(&load->lock);
	load->progress.objects += l->page_count;
	load->progress.bytes += l->page_bytes;
	load->names_waiting += (unsigned)l->page_count;
	pthread_mutex_unlock(&load->lock);
	STAILQ_CONCAT(&load->names, &l->page);
	l->page_count = l->page_bytes = 0;
	if (!l->truncated)
		next_target(load);
	return 0;
}
