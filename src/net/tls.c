#include "net/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <string.h>

#define TLS_MAGIC 0x544c5343u
#define REMEMBERED_HOSTS 64

/* A session that the next connection to the host may resume. The certificate was verified for that very host. */
struct remembered {
	char *host;
	SSL_SESSION *session;
	uint64_t used;
};

struct cst_tls {
	uint32_t magic;
	SSL_CTX *ctx;
	pthread_mutex_t lock; /* of what follows */
	struct remembered hosts[REMEMBERED_HOSTS];
	uint64_t tick;
};

static void free_host(void *parent, void *host, CRYPTO_EX_DATA *data, int index, long argl, void *argp)
{
	(void)parent, (void)data, (void)index, (void)argl, (void)argp;
	free(host);
}

/* Where a client session keeps its own copy of the host's name. */
static int host_index(void)
{
	static int index = -1;
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	int found;

	pthread_mutex_lock(&lock);
	if (index < 0)
		index = SSL_get_ex_new_index(0, NULL, NULL, NULL, free_host);
	found = index;
	pthread_mutex_unlock(&lock);
	return found;
}

static struct cst_tls *tls_new(const SSL_METHOD *method, struct cst_error *err)
{
	struct cst_tls *tls = CST_NEW(struct cst_tls);

	tls->magic = TLS_MAGIC;
	pthread_mutex_init(&tls->lock, NULL);
	tls->ctx = SSL_CTX_new(method);
	if (!tls->ctx) {
		cst_error_set(err, ENOMEM, "can't set TLS up");
		cst_tls_error(err, NULL);
		cst_tls_free(tls);
		return NULL;
	}
	SSL_CTX_set_app_data(tls->ctx, tls);
	SSL_CTX_set_min_proto_version(tls->ctx, TLS1_2_VERSION);
	SSL_CTX_set_options(tls->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(tls->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					   SSL_MODE_RELEASE_BUFFERS);
	return tls;
}

/* OpenSSL's callback: a ticket (TLS 1.3, after the handshake) or a session has come. Returns 1 when it is kept. */
static int session_came(SSL *ssl, SSL_SESSION *session)
{
	struct cst_tls *tls = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	const char *host = SSL_get_ex_data(ssl, host_index());
	struct remembered *slot = NULL;

	if (!host || !SSL_SESSION_is_resumable(session))
		return 0;
	pthread_mutex_lock(&tls->lock);
	for (int i = 0; i < REMEMBERED_HOSTS; i++) {
		struct remembered *r = &tls->hosts[i];

		if (r->host && strcmp(r->host, host) == 0) {
			slot = r;
			break;
		}
		if (!slot || r->used < slot->used)
			slot = r;
	}
	if (!slot->host || strcmp(slot->host, host) != 0) {
		free(slot->host);
		slot->host = cst_xstrdup(host);
	}
	SSL_SESSION_free(slot->session);
	slot->session = session;
	slot->used = ++tls->tick;
	pthread_mutex_unlock(&tls->lock);
	return 1;
}

static void resume_session(struct cst_tls *tls, SSL *ssl, const char *host)
{
	pthread_mutex_lock(&tls->lock);
	for (int i = 0; i < REMEMBERED_HOSTS; i++) {
		struct remembered *r = &tls->hosts[i];

		if (r->host && strcmp(r->host, host) == 0) {
			SSL_set_session(ssl, r->session);
			r->used = ++tls->tick;
			break;
		}
	}
	pthread_mutex_unlock(&tls->lock);
}

struct cst_tls *cst_tls_client_new(const char *ca_file, struct cst_error *err)
{
	struct cst_tls *tls = tls_new(TLS_client_method(), err);
	static const unsigned char alpn[] = "\x08http/1.1";

	if (!tls)
		return NULL;
	ERR_clear_error();
	if (ca_file && SSL_CTX_load_verify_file(tls->ctx, ca_file) != 1) {
		cst_error_set(err, EINVAL, "can't read CA certificates from %s", ca_file);
		cst_tls_error(err, NULL);
		cst_error_hint(err, "the file must hold certificates in PEM form");
		cst_tls_free(tls);
		return NULL;
	}
	if (!ca_file && SSL_CTX_set_default_verify_paths(tls->ctx) != 1) {
		cst_error_set(err, EINVAL, "can't read the system's CA certificates");
		cst_tls_error(err, NULL);
		cst_tls_free(tls);
		return NULL;
	}
	SSL_CTX_set_verify(tls->ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_alpn_protos(tls->ctx, alpn, sizeof(alpn) - 1);
	SSL_CTX_set_session_cache_mode(tls->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(tls->ctx, session_came);
	/* One recv() for several records instead of two for each. */
	SSL_CTX_set_read_ahead(tls->ctx, 1);
	SSL_CTX_set_default_read_buffer_len(tls->ctx, 65536);
	return tls;
}

struct cst_tls *cst_tls_server_new(const char *cert_file, const char *key_file, struct cst_error *err)
{
	struct cst_tls *tls = tls_new(TLS_server_method(), err);
	static const unsigned char id[] = "cistern";

	if (!tls)
		return NULL;
	ERR_clear_error();
	if (SSL_CTX_use_certificate_chain_file(tls->ctx, cert_file) != 1) {
		cst_error_set(err, EINVAL, "can't use the TLS certificate %s", cert_file);
		goto fail;
	}
	if (SSL_CTX_use_PrivateKey_file(tls->ctx, key_file, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_check_private_key(tls->ctx) != 1) {
		cst_error_set(err, EINVAL, "can't use the TLS key %s", key_file);
		goto fail;
	}
	SSL_CTX_set_session_id_context(tls->ctx, id, sizeof(id) - 1);
	SSL_CTX_set_options(tls->ctx, SSL_OP_ENABLE_KTLS | SSL_OP_CIPHER_SERVER_PREFERENCE);
	return tls;
fail:
	cst_tls_error(err, NULL);
	cst_error_hint(err, "both files must be in PEM form and belong together");
	cst_tls_free(tls);
	return NULL;
}

void cst_tls_free(struct cst_tls *tls)
{
	if (!tls)
		return;
	CST_CHECK(tls, TLS_MAGIC);
	for (int i = 0; i < REMEMBERED_HOSTS; i++) {
		SSL_SESSION_free(tls->hosts[i].session);
		free(tls->hosts[i].host);
	}
	SSL_CTX_free(tls->ctx);
	pthread_mutex_destroy(&tls->lock);
	tls->magic = 0;
	free(tls);
}

static bool is_ip(const char *host)
{
	struct in6_addr addr;

	return inet_pton(AF_INET, host, &addr) == 1 || inet_pton(AF_INET6, host, &addr) == 1;
}

SSL *cst_tls_session_client(struct cst_tls *tls, int fd, const char *host)
{
	SSL *ssl;

	CST_CHECK(tls, TLS_MAGIC);
	ssl = SSL_new(tls->ctx);
	if (!ssl)
		return NULL;
	if (SSL_set_fd(ssl, fd) != 1)
		goto fail;
	if (is_ip(host)) {
		if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) != 1)
			goto fail;
	} else {
		SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
		if (SSL_set_tlsext_host_name(ssl, host) != 1 || SSL_set1_host(ssl, host) != 1)
			goto fail;
	}
	SSL_set_ex_data(ssl, host_index(), cst_xstrdup(host));
	resume_session(tls, ssl, host);
	SSL_set_connect_state(ssl);
	return ssl;
fail:
	SSL_free(ssl);
	return NULL;
}

SSL *cst_tls_session_server(struct cst_tls *tls, int fd)
{
	SSL *ssl;

	CST_CHECK(tls, TLS_MAGIC);
	ssl = SSL_new(tls->ctx);
	if (!ssl)
		return NULL;
	if (SSL_set_fd(ssl, fd) != 1) {
		SSL_free(ssl);
		return NULL;
	}
	SSL_set_accept_state(ssl);
	return ssl;
}

/* What a failed verification means and what to do about it; false when there is no better text than OpenSSL's. */
static bool explain_verification(struct cst_error *err, long result)
{
	switch (result) {
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
		cst_error_why(err, "the server's certificate is signed by an unknown CA (%s)",
			      X509_verify_cert_error_string(result));
		cst_error_hint(err,
			       "name the file with that CA's certificate (--ca FILE), or install it on the system");
		return true;
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		cst_error_why(err, "the server's certificate is for another name");
		cst_error_hint(err,
			       "use the name in the certificate as the endpoint; virtual-host style needs a wildcard "
			       "certificate, else use path style");
		return true;
	case X509_V_ERR_CERT_HAS_EXPIRED:
		cst_error_why(err, "the server's certificate has expired");
		cst_error_hint(err, "check this machine's clock; else the server needs a new certificate");
		return true;
	case X509_V_ERR_CERT_NOT_YET_VALID:
		cst_error_why(err, "the server's certificate is not valid yet");
		cst_error_hint(err, "check this machine's clock");
		return true;
	default:
		return false;
	}
}

void cst_tls_error(struct cst_error *err, SSL *session)
{
	long verified = session ? SSL_get_verify_result(session) : X509_V_OK;
	unsigned long code = ERR_peek_error();
	const char *reason;

	if (verified != X509_V_OK && explain_verification(err, verified)) {
		ERR_clear_error();
		return;
	}
	reason = ERR_SYSTEM_ERROR(code) ? strerrordesc_np(ERR_GET_REASON(code)) : ERR_reason_error_string(code);
	if (verified != X509_V_OK) {
		cst_error_why(err, "the server's certificate is not accepted: %s",
			      X509_verify_cert_error_string(verified));
	} else if (code && ERR_GET_LIB(code) == ERR_LIB_SSL &&
		   (ERR_GET_REASON(code) == SSL_R_WRONG_VERSION_NUMBER || ERR_GET_REASON(code) == SSL_R_HTTP_REQUEST ||
		    ERR_GET_REASON(code) == SSL_R_PACKET_LENGTH_TOO_LONG)) {
		cst_error_why(err, "the other side does not speak TLS (%s)", reason ? reason : "");
		cst_error_hint(err, "use http:// for it, or the port that serves TLS");
	} else {
		cst_error_why(err, "TLS: %s", reason ? reason : code ? "unknown failure" : "the connection was closed");
	}
	ERR_clear_error();
}
