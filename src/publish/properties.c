#include "publish/internal.h"

#include <string.h>

/* All texts go one after the other into one buffer; where they are is known when it has ended to grow. */
static void add(struct cst_buf *text, struct cst_slice s)
{
	cst_buf_add_slice(text, s);
}

static struct cst_slice take(const char **at, struct cst_slice s)
{
	struct cst_slice taken = {*at, s.len};
	*at += s.len;
	return taken;
}

struct properties *properties_new(const struct cst_object_properties *from)
{
	struct properties *p = CST_NEW(struct properties);
	cst_ref_init(&p->ref);
	p->meta = cst_xcalloc(from->meta_count + 1, sizeof(*p->meta));
	for (size_t i = 0; i < from->meta_count; i++) {
		add(&p->text, from->meta[i].name);
		add(&p->text, from->meta[i].value);
	}
	add(&p->text, from->content_type);
	add(&p->text, from->storage_class);
	add(&p->text, from->acl);
	add(&p->text, from->extra);
	const char *at = p->text.data ? p->text.data : "";
	for (size_t i = 0; i < from->meta_count; i++) {
		struct cst_slice name = take(&at, from->meta[i].name);
		struct cst_slice value = take(&at, from->meta[i].value);
		/* One of an earlier publication: it gets its own. */
		if (!cst_slice_is(name, WRITE_ID_HEADER))
			p->meta[p->meta_count++] = (struct cst_http_header){.name = name, .value = value};
	}
	p->content_type = take(&at, from->content_type);
	p->storage_class = take(&at, from->storage_class);
	p->acl = take(&at, from->acl);
	p->extra = take(&at, from->extra);
	return p;
}

struct properties *properties_ref(struct properties *p)
{
	cst_ref_get(&p->ref);
	return p;
}

void properties_unref(struct properties *p)
{
	if (!p || !cst_ref_put(&p->ref))
		return;
	cst_buf_fini(&p->text);
	free(p->meta);
	free(p);
}
