/* The current credential with the key derived from it, so that a request costs one HMAC instead of five and no copy of the
 * secret. Both live in secret memory; the secret itself is kept for V1 only. */
#include "object/backend.h"
#include "object/credentials_internal.h"

#include "base/clock.h"

struct vault {
	struct cst_credential cred;
	uint8_t key[32];
	char region[CST_REGION_MAX];
	char day[9];
	enum cst_sign_kind kind;
	bool filled;
};

struct cst_signer {
	pthread_rwlock_t lock;
	struct vault *vault;
};

struct cst_signer *cst_signer_new(void)
{
	struct cst_signer *s = CST_NEW(struct cst_signer);
	pthread_rwlock_init(&s->lock, NULL);
	s->vault = cst_secret_map(sizeof(*s->vault));
	return s;
}

void cst_signer_free(struct cst_signer *s)
{
	if (!s)
		return;
	cst_secret_unmap(s->vault, sizeof(*s->vault));
	pthread_rwlock_destroy(&s->lock);
	free(s);
}

static bool usable(const struct vault *v, struct cst_credentials *credentials, const struct cst_sign_request *req,
		   const char *day)
{
	return v->filled && v->kind == req->kind && v->cred.generation == cst_credentials_generation(credentials) &&
	       (req->kind == CST_SIGN_OSS_V1 || (strncmp(v->day, day, 8) == 0 && strcmp(v->region, req->region) == 0));
}

static void fill(struct vault *v, struct cst_credentials *credentials, const struct cst_sign_request *req,
		 const char *day)
{
	cst_credentials_get(credentials, &v->cred);
	v->kind = req->kind;
	v->filled = true;
	if (req->kind == CST_SIGN_OSS_V1)
		return;
	memcpy(v->day, day, 8);
	snprintf(v->region, sizeof(v->region), "%s", req->region);
	cst_sign_key(req->kind, &v->cred, (struct cst_slice){v->day, 8}, cst_slice_of(v->region), v->key);
	explicit_bzero(v->cred.secret_key, sizeof(v->cred.secret_key));
}

static uint64_t sign_locked(const struct vault *v, const struct cst_sign_request *req, struct cst_buf *out)
{
	struct cst_sign_request with_key = *req;
	with_key.key_for_date = req->kind == CST_SIGN_OSS_V1 ? NULL : v->key;
	cst_sign_headers(&with_key, &v->cred, out);
	return v->cred.generation;
}

uint64_t cst_signer_sign(struct cst_signer *s, struct cst_credentials *credentials, const struct cst_sign_request *req,
			 struct cst_buf *out)
{
	char day[CST_TIME_TEXT];
	uint64_t generation;
	cst_time_compact(req->time, day);
	pthread_rwlock_rdlock(&s->lock);
	if (usable(s->vault, credentials, req, day)) {
		generation = sign_locked(s->vault, req, out);
		pthread_rwlock_unlock(&s->lock);
		return generation;
	}
	pthread_rwlock_unlock(&s->lock);
	pthread_rwlock_wrlock(&s->lock);
	if (!usable(s->vault, credentials, req, day))
		fill(s->vault, credentials, req, day);
	generation = sign_locked(s->vault, req, out);
	pthread_rwlock_unlock(&s->lock);
	return generation;
}
