#include "write_fixture.h"

#include "base/clock.h"

#include <errno.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

void written_init(struct written *w)
{
	*w = (struct written){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
}

void written_fini(struct written *w)
{
	cst_buf_fini(&w->upload_id);
	cst_buf_fini(&w->list);
	cst_buf_fini(&w->next_key);
	cst_buf_fini(&w->next_id);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->changed);
}

void written_wait(struct written *w)
{
	pthread_mutex_lock(&w->lock);
	while (!w->done)
		pthread_cond_wait(&w->changed, &w->lock);
	pthread_mutex_unlock(&w->lock);
}

static void ended(struct written *w, int rc, const struct cst_error *err)
{
	pthread_mutex_lock(&w->lock);
	CST_ASSERT(!w->done); /* exactly once */
	CST_ASSERT(rc >= 0 || err);
	w->rc = rc;
	if (err) {
		w->err = *err;
		cst_error_text(err, w->text, sizeof(w->text));
	}
	w->done = true;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

void on_written(void *arg, const struct cst_object_written *written)
{
	struct written *w = arg;
	w->repeated = written->repeated;
	w->info = *written->info;
	w->part = *written->part;
	w->next_position = written->next_position;
	cst_buf_add_slice(&w->upload_id, written->upload_id);
	ended(w, written->rc, written->err);
}

static void one_part(void *arg, const struct cst_object_part *part)
{
	struct written *w = arg;
	w->part = *part;
	cst_buf_printf(&w->list, "%u:%llu:%s;", part->number, (unsigned long long)part->size, part->etag);
}

static void parts_done(void *arg, int rc, unsigned next, const struct cst_error *err)
{
	struct written *w = arg;
	w->next = next;
	ended(w, rc, err);
}

const struct cst_object_parts_ops on_parts = {.part = one_part, .done = parts_done};

static void one_upload(void *arg, struct cst_slice key, struct cst_slice upload_id, int64_t initiated)
{
	struct written *w = arg;
	cst_buf_printf(&w->list, "%.*s:%.*s:%d;", (int)key.len, key.data, (int)upload_id.len, upload_id.data,
		       initiated > 0);
}

static void uploads_done(void *arg, int rc, struct cst_slice next_key, struct cst_slice next_upload,
			 const struct cst_error *err)
{
	struct written *w = arg;
	cst_buf_add_slice(&w->next_key, next_key);
	cst_buf_add_slice(&w->next_id, next_upload);
	ended(w, rc, err);
}

const struct cst_object_uploads_ops on_uploads = {.upload = one_upload, .done = uploads_done};

static void one_failed(void *arg, struct cst_slice key, int rc, const struct cst_error *err)
{
	struct written *w = arg;
	CST_ASSERT(err && err->code == -rc);
	w->err = *err;
	cst_buf_printf(&w->list, "%.*s=%d;", (int)key.len, key.data, rc);
}

static void delete_done(void *arg, int rc, const struct cst_error *err)
{
	ended(arg, rc, err);
}

const struct cst_object_delete_ops on_delete = {one_failed, delete_done};

int finish(struct cst_object_op *op, struct written *w)
{
	written_wait(w);
	cst_object_release(op);
	return w->rc;
}

/* ---- the embedded store ---- */

/* A certificate for 127.0.0.1 that is its own authority. */
static void make_certificate(const char *cert_file, const char *key_file)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();
	X509_EXTENSION *name = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1");
	FILE *f;
	X509_set_version(cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	X509_gmtime_adj(X509_getm_notBefore(cert), -7200);
	X509_gmtime_adj(X509_getm_notAfter(cert), 7200);
	X509_set_pubkey(cert, key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *)"store", -1,
				   -1, 0);
	X509_set_issuer_name(cert, X509_get_subject_name(cert));
	CST_ASSERT(name && X509_add_ext(cert, name, -1) == 1 && X509_sign(cert, key, EVP_sha256()) > 0);
	CST_ASSERT((f = fopen(cert_file, "w")) && PEM_write_X509(f, cert) && fclose(f) == 0);
	CST_ASSERT((f = fopen(key_file, "w")) && PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) &&
		   fclose(f) == 0);
	X509_EXTENSION_free(name);
	X509_free(cert);
	EVP_PKEY_free(key);
}

void real_store_start(struct real_store *s, enum cst_cloud cloud, enum cst_sign_kind sign, const char *fault, bool tls)
{
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX], address[64], keys[96], bucket[96], cert[96], key[96];
	const char *listen = "127.0.0.1:0";
	*s = (struct real_store){0};
	snprintf(s->dir, sizeof(s->dir), "%s/write-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	CST_ASSERT(mkdtemp(s->dir));
	snprintf(keys, sizeof(keys), "%s/.keys", s->dir);
	snprintf(bucket, sizeof(bucket), "%s/bkt", s->dir);
	FILE *f = fopen(keys, "w");
	CST_ASSERT(f && fputs("ak:sk-secret-key\n", f) >= 0 && fclose(f) == 0 && mkdir(bucket, 0755) == 0);
	snprintf(cert, sizeof(cert), "%s/.cert", s->dir);
	snprintf(key, sizeof(key), "%s/.key", s->dir);
	if (tls)
		make_certificate(cert, key);
	struct cst_store_config c = {.dir = s->dir,
				     .tls_cert = tls ? cert : NULL,
				     .tls_key = tls ? key : NULL,
				     .addresses = &listen,
				     .address_count = 1,
				     .keys_file = keys,
				     .faults = &fault,
				     .fault_count = fault ? 1 : 0,
				     .fault_seed = 7};
	if (cst_store_start(&c, &s->store, &err) < 0)
		cst_panic(__FILE__, __LINE__, "%s", cst_error_text(&err, text, sizeof(text)));
	cst_store_address(s->store, 0, address, sizeof(address));
	snprintf(s->endpoint, sizeof(s->endpoint), "%s://%s", tls ? "https" : "http", address);
	struct cst_http_client_config h = {.max_connections = 64, .ca_file = tls ? cert : NULL};
	struct cst_credentials_config cc = {.cloud = cloud, .access_key = "ak", .secret_key = "sk-secret-key"};
	s->http = cst_http_client_new(&h, &err);
	s->credentials = cst_credentials_new(&cc, &err);
	struct cst_bucket_config b = {.cloud = cloud,
				      .bucket = "bkt",
				      .endpoint = s->endpoint,
				      .region = "cn-test",
				      .sign = sign,
				      .credentials = s->credentials,
				      .http = s->http};
	s->bucket = cst_bucket_new(&b, &err);
	if (!s->http || !s->credentials || !s->bucket)
		cst_panic(__FILE__, __LINE__, "%s", cst_error_text(&err, text, sizeof(text)));
	cst_bucket_tune(s->bucket,
			&(struct cst_object_tuning){.backoff_base = CST_NS_PER_MS, .backoff_cap = 4 * CST_NS_PER_MS});
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

void real_store_stop(struct real_store *s)
{
	cst_bucket_free(s->bucket);
	cst_http_client_free(s->http);
	cst_credentials_free(s->credentials);
	cst_store_stop(s->store, CST_NS_PER_S);
	nftw(s->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int real_store_read(struct real_store *s, struct cst_slice key, char *buffer, size_t size, struct cst_object_info *info)
{
	struct outcome o;
	outcome_init(&o);
	struct cst_object_op *op = cst_object_head(s->bucket, key, false, outcome_head, &o);
	outcome_wait(&o);
	cst_object_release(op);
	int rc = o.rc;
	*info = o.info;
	outcome_fini(&o);
	if (rc < 0 || info->size == 0)
		return rc;
	struct iovec into = {buffer, size};
	struct cst_object_get get = {.key = key, .length = size, .into = &into, .into_count = 1};
	outcome_init(&o);
	op = cst_object_get(s->bucket, &get, outcome_get, &o);
	outcome_wait(&o);
	cst_object_release(op);
	rc = o.rc < 0 ? o.rc : (int)o.got;
	outcome_fini(&o);
	return rc;
}

/* ---- scripts ---- */

enum scripted_end play(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	const struct script *script = arg;
	const struct step *s = &script->steps[cst_min(n, STEPS - 1)];
	CST_AUTO_BUF error = CST_BUF_INIT;
	(void)request;
	if (s->status == 0)
		return s->reset ? SCRIPTED_RESET : SCRIPTED_CLOSE;
	cst_buf_printf(&error, "<Error><Code>%s</Code><Message>m</Message></Error>", s->code ? s->code : "");
	scripted_answer(out, s->status, s->headers ? s->headers : "", s->body ? s->body : s->code ? error.data : "");
	if (!s->cut)
		return SCRIPTED_KEEP;
	CST_ASSERT(out->len > (size_t)s->cut);
	out->len -= (size_t)s->cut;
	return SCRIPTED_CLOSE;
}

struct cst_credentials *test_keys(enum cst_cloud cloud)
{
	struct cst_credentials_config c = {.cloud = cloud, .access_key = "ak", .secret_key = "sEcReT"};
	struct cst_credentials *made = cst_credentials_new(&c, NULL);
	CST_ASSERT(made);
	return made;
}

void scripted_fixture_start(struct fixture *f, const struct script *script, enum cst_cloud cloud)
{
	struct cst_bucket_config c = {.cloud = cloud, .credentials = test_keys(cloud)};
	fixture_start(f, play, script, &c);
}

bool has(const char *request, const char *line)
{
	return strstr(request, line) != NULL;
}
