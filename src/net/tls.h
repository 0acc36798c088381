/* TLS contexts over OpenSSL. A client context trusts the system's CAs or the file given, always verifies certificate
 * and host name, and offers TLS 1.2 and later. Made once at start; sessions from it may be made on any thread.
 *
 * A client context remembers the last session of each of the latest 64 hosts and resumes it on the next connection, under
 * a lock of its own. A server context lets the kernel encrypt (kTLS) where it can, so that SSL_sendfile() may work:
 * ask BIO_get_ktls_send(SSL_get_wbio(session)). */
#pragma once

#include "base/error.h"

struct cst_tls; /* an SSL_CTX */
typedef struct ssl_st SSL;

struct cst_tls *cst_tls_client_new(const char *ca_file, struct cst_error *err); /* ca_file NULL: the system's */
struct cst_tls *cst_tls_server_new(const char *cert_file, const char *key_file, struct cst_error *err);
void cst_tls_free(struct cst_tls *tls);
/* A session over a connected socket. Client: SNI and verification against `host` (a name or an IP literal). */
SSL *cst_tls_session_client(struct cst_tls *tls, int fd, const char *host);
SSL *cst_tls_session_server(struct cst_tls *tls, int fd);
/* Fills err->why with OpenSSL's reason and, for the common ones (unknown CA, name mismatch, expired, not TLS at all),
 * a hint; clears OpenSSL's queue. */
void cst_tls_error(struct cst_error *err, SSL *session);
