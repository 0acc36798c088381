/* Parsers of what credential sources hold: passwd files, and the answers (JSON, XML) of processes and services. They write
 * secrets only into the caller's struct cst_credential, and never into errors. */
#include "object/credentials_internal.h"

#include "base/clock.h"
#include "base/text.h"

#include <errno.h>

static int bad_line(struct cst_error *err, const char *name, unsigned line, const char *why, const char *hint)
{
	cst_error_set(err, EINVAL, "can't read credentials from %s", name);
	if (line)
		cst_error_why(err, "line %u: %s", line, why);
	else
		cst_error_why(err, "%s", why);
	cst_error_hint(err, "%s", hint);
	return -EINVAL;
}

int cst_cred_set(char *field, size_t size, struct cst_slice value, const char *what, const char *name, unsigned line,
		 struct cst_error *err)
{
	char why[160];
	if (value.len == 0) {
		snprintf(why, sizeof(why), "the %s is empty", what);
		return bad_line(err, name, line, why, "fill it in");
	}
	if (value.len >= size) {
		snprintf(why, sizeof(why), "the %s has %zu bytes, at most %zu are possible", what, value.len, size - 1);
		return bad_line(err, name, line, why, "check that it was copied right");
	}
	for (size_t i = 0; i < value.len; i++) {
		unsigned char ch = (unsigned char)value.data[i];
		if (ch > 0x20 && ch < 0x7f)
			continue;
		snprintf(why, sizeof(why), "the %s has %s at position %zu", what,
			 ch == ' ' || ch == '\t' ? "a blank" : "a character that no key contains", i + 1);
		return bad_line(err, name, line, why,
				"check that it was copied right, without blanks, quotes or comments");
	}
	explicit_bzero(field, size);
	memcpy(field, value.data, value.len);
	return 0;
}

/* ---- [bucket:]ak:sk ---- */

#define PASSWD_FORM "write [BUCKET:]ACCESS_KEY_ID:ACCESS_KEY_SECRET, one entry a line, # starts a comment"

/* Which line gave the bucket's own entry, and which the one for all buckets; 0: none yet. */
struct passwd_found {
	unsigned own, any;
};

static int passwd_line(const char *name, struct cst_slice text, unsigned line, const char *bucket,
		       struct passwd_found *found, struct cst_credential *out, struct cst_error *err)
{
	if (text.data[0] == '[')
		return bad_line(err, name, line, "a section header: this is not a passwd file", PASSWD_FORM);
	struct cst_slice rest = text;
	struct cst_slice part[3];
	size_t parts = 0;
	while (rest.data) {
		if (parts == 3)
			return bad_line(err, name, line, "more than two ':'", PASSWD_FORM);
		part[parts++] = cst_slice_cut(&rest, ':');
	}
	if (parts < 2)
		return bad_line(err, name, line, "no ':' between key and secret", PASSWD_FORM);
	bool own = parts == 3;
	if (own && part[0].len == 0)
		return bad_line(err, name, line, "the bucket name before the first ':' is empty", PASSWD_FORM);
	bool wanted = !own || (bucket && cst_slice_is(part[0], bucket));
	unsigned *seen = own ? &found->own : &found->any;
	if (wanted && *seen) {
		char why[96];
		snprintf(why, sizeof(why), "a second entry for %s (the first is in line %u)",
			 own ? "the bucket" : "all buckets", *seen);
		return bad_line(err, name, line, why, "keep one of them");
	}
	/* Entries of other buckets are checked too: a mistake there would surprise at the next mount. */
	struct cst_credential *scratch = cst_secret_map(sizeof(*scratch));
	int rc = cst_cred_set(scratch->access_key, sizeof(scratch->access_key), part[parts - 2], "access key ID", name,
			      line, err);
	if (rc == 0)
		rc = cst_cred_set(scratch->secret_key, sizeof(scratch->secret_key), part[parts - 1],
				  "access key secret", name, line, err);
	if (rc == 0 && wanted && (own || !found->own))
		*out = *scratch;
	if (rc == 0 && wanted)
		*seen = line;
	cst_secret_unmap(scratch, sizeof(*scratch));
	return rc;
}

int cst_cred_parse_passwd(const char *name, struct cst_slice text, const char *bucket, struct cst_credential *out,
			  struct cst_error *err)
{
	struct passwd_found found = {0};
	unsigned number = 0;
	while (text.data) {
		struct cst_slice line = cst_slice_cut(&text, '\n');
		number++;
		if (line.len > 0 && line.data[line.len - 1] == '\r')
			line.len--;
		line = cst_slice_trim(line);
		if (line.len == 0 || line.data[0] == '#')
			continue;
		int rc = passwd_line(name, line, number, bucket, &found, out, err);
		if (rc < 0)
			return rc;
	}
	return found.own || found.any ? 0 : -ENODATA;
}

/* ---- JSON ---- */

#define JSON_DEPTH_MAX 32

struct json {
	const char *at, *end;
};

static void json_blanks(struct json *j)
{
	while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r'))
		j->at++;
}

static bool json_take(struct json *j, char ch)
{
	json_blanks(j);
	if (j->at == j->end || *j->at != ch)
		return false;
	j->at++;
	return true;
}

static bool json_string(struct json *j, struct cst_slice *raw)
{
	if (!json_take(j, '"'))
		return false;
	const char *start = j->at - 1;
	for (; j->at < j->end; j->at++) {
		unsigned char ch = (unsigned char)*j->at;
		if (ch == '"') {
			j->at++;
			*raw = (struct cst_slice){start, (size_t)(j->at - start)};
			return true;
		}
		if (ch < 0x20)
			return false;
		if (ch == '\\' && ++j->at == j->end)
			return false;
	}
	return false;
}

/* Numbers and words: only their extent matters here. */
static bool json_word(struct json *j)
{
	const char *start = j->at;
	while (j->at < j->end && ((*j->at >= '0' && *j->at <= '9') || (*j->at >= 'a' && *j->at <= 'z') ||
				  *j->at == 'E' || *j->at == '+' || *j->at == '-' || *j->at == '.'))
		j->at++;
	return j->at > start;
}

static bool json_value(struct json *j, int depth, struct cst_slice *raw);

static bool json_members(struct json *j, int depth, char close)
{
	if (json_take(j, close))
		return true;
	do {
		struct cst_slice ignored;
		if (close == '}' && (!json_string(j, &ignored) || !json_take(j, ':')))
			return false;
		if (!json_value(j, depth + 1, &ignored))
			return false;
	} while (json_take(j, ','));
	return json_take(j, close);
}

static bool json_value(struct json *j, int depth, struct cst_slice *raw)
{
	json_blanks(j);
	if (j->at == j->end || depth > JSON_DEPTH_MAX)
		return false;
	const char *start = j->at;
	struct cst_slice ignored;
	bool ok;
	if (*j->at == '"') {
		ok = json_string(j, &ignored);
	} else if (*j->at == '{' || *j->at == '[') {
		char close = *j->at == '{' ? '}' : ']';
		j->at++;
		ok = json_members(j, depth, close);
	} else {
		ok = json_word(j);
	}
	*raw = (struct cst_slice){start, (size_t)(j->at - start)};
	return ok;
}

int cst_json_find(struct cst_slice text, const char *key, struct cst_slice *raw)
{
	struct json j = {text.data, text.data + text.len};
	size_t key_len = strlen(key);
	bool found = false;
	if (text.len == 0 || !json_take(&j, '{'))
		return -EINVAL;
	if (!json_take(&j, '}')) {
		do {
			struct cst_slice name, value;
			if (!json_string(&j, &name) || !json_take(&j, ':') || !json_value(&j, 1, &value))
				return -EINVAL;
			/* Of a repeated member the first counts. No key we look for needs escapes. */
			if (!found && name.len == key_len + 2 && memcmp(name.data + 1, key, key_len) == 0) {
				*raw = value;
				found = true;
			}
		} while (json_take(&j, ','));
		if (!json_take(&j, '}'))
			return -EINVAL;
	}
	json_blanks(&j);
	if (j.at != j.end)
		return -EINVAL;
	return found ? 0 : -ENOENT;
}

static int hex4(const char *at, const char *end, unsigned *value)
{
	*value = 0;
	if (end - at < 4)
		return -EINVAL;
	for (int i = 0; i < 4; i++) {
		unsigned ch = (unsigned char)at[i], digit;
		if (ch >= '0' && ch <= '9')
			digit = ch - '0';
		else if ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'f')
			digit = (ch | 0x20) - 'a' + 10;
		else
			return -EINVAL;
		*value = *value * 16 + digit;
	}
	return 0;
}

/* One escape after the backslash. Keys and tokens are ASCII: \uXXXX beyond it is refused. Returns the bytes used, or -EINVAL. */
static int json_escape(const char *at, const char *end, char *ch)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	if (*at == 'u') {
		unsigned value;
		if (hex4(at + 1, end, &value) < 0 || value == 0 || value > 0x7f)
			return -EINVAL;
		*ch = (char)value;
		return 5;
	}
	const char *hit = *at ? strchr(from, *at) : NULL;
	if (!hit)
		return -EINVAL;
	*ch = to[hit - from];
	return 1;
}

int cst_json_text(struct cst_slice raw, char *out, size_t size)
{
	const char *at = raw.data, *end = raw.data + raw.len;
	size_t n = 0;
	bool quoted = raw.len >= 2 && *at == '"';
	if (quoted) {
		at++;
		end--;
	} else if (raw.len == 0 || *at < '0' || *at > '9') {
		return -EINVAL;
	}
	while (at < end) {
		char ch = *at++;
		if (ch == '\\') {
			int used = at < end ? json_escape(at, end, &ch) : -EINVAL;
			if (used < 0)
				return used;
			at += used;
		}
		if (n + 1 >= size)
			return -ENOSPC;
		out[n++] = ch;
	}
	if (size == 0)
		return -ENOSPC;
	out[n] = '\0';
	return 0;
}

/* ---- answers ---- */

/* The text of the first element of that name, which holds no markup. */
static int xml_find(struct cst_slice text, const char *name, struct cst_slice *value)
{
	size_t len = strlen(name);
	const char *at = text.data, *end = text.data + text.len;
	while ((at = memchr(at, '<', (size_t)(end - at))) != NULL) {
		at++;
		if ((size_t)(end - at) <= len || memcmp(at, name, len) != 0 || at[len] != '>')
			continue;
		const char *start = at + len + 1;
		const char *stop = memchr(start, '<', (size_t)(end - start));
		if (!stop)
			return -EINVAL;
		if (memchr(start, '&', (size_t)(stop - start)))
			return -EINVAL;
		while (start < stop && (unsigned char)*start <= ' ')
			start++;
		while (start < stop && (unsigned char)stop[-1] <= ' ')
			stop--;
		*value = (struct cst_slice){start, (size_t)(stop - start)};
		return 0;
	}
	return -ENOENT;
}

struct answer {
	const char *name;
	struct cst_slice text;
	bool xml;
	char *scratch; /* secret memory, CST_ANSWER_SCRATCH bytes */
	struct cst_error *err;
};
#define CST_ANSWER_SCRATCH 8192

/* Finds the first of the '|'-separated names. 0 with *value (in scratch for JSON), -ENOENT, -EINVAL with err set. */
static int answer_find(struct answer *a, const char *names, struct cst_slice *value)
{
	struct cst_slice rest = cst_slice_of(names);
	while (rest.data) {
		struct cst_slice one = cst_slice_cut(&rest, '|');
		char key[32];
		snprintf(key, sizeof(key), "%.*s", (int)one.len, one.data);
		struct cst_slice raw;
		int rc = a->xml ? xml_find(a->text, key, &raw) : cst_json_find(a->text, key, &raw);
		if (rc == -ENOENT || (rc == 0 && !a->xml && cst_slice_is(raw, "null")))
			continue;
		if (rc == 0 && !a->xml) {
			rc = cst_json_text(raw, a->scratch, CST_ANSWER_SCRATCH);
			raw = cst_slice_of(a->scratch);
		}
		if (rc < 0) {
			char why[96];
			snprintf(why, sizeof(why), "the value of %s is not usable text", key);
			return bad_line(a->err, a->name, 0, why, "");
		}
		*value = raw;
		return 0;
	}
	return -ENOENT;
}

static int answer_field(struct answer *a, const char *names, const char *what, bool required, char *field, size_t size)
{
	struct cst_slice value;
	int rc = answer_find(a, names, &value);
	if (rc == 0 && (required || value.len > 0))
		return cst_cred_set(field, size, value, what, a->name, 0, a->err);
	if (rc == 0 || (rc == -ENOENT && !required))
		return 0;
	if (rc != -ENOENT)
		return rc;
	char why[96];
	snprintf(why, sizeof(why), "there is no %s in the answer", what);
	return bad_line(
		a->err, a->name, 0, why,
		"an answer looks like {\"AccessKeyId\": …, \"AccessKeySecret\": …, \"SecurityToken\": …, \"Expiration\": …}");
}

int cst_cred_parse_expiry(const char *name, struct cst_slice text, int64_t *expires, struct cst_error *err)
{
	text = cst_slice_trim(text);
	bool digits = text.len > 0 && text.len <= 12;
	int64_t s = 0;
	for (size_t i = 0; digits && i < text.len; i++) {
		digits = text.data[i] >= '0' && text.data[i] <= '9';
		s = s * 10 + (text.data[i] - '0');
	}
	if (digits || cst_time_parse(text.data, text.len, &s) == 0) {
		*expires = s;
		return 0;
	}
	return bad_line(err, name, 0, "the expiration is not a time", "write it like 2026-01-31T12:00:00Z");
}

/* Metadata services answer 200 with {"Code": "Failed"} when they can't. */
static int answer_code(struct answer *a)
{
	struct cst_slice code;
	int rc = answer_find(a, "Code", &code);
	if (rc == -ENOENT)
		return 0;
	if (rc < 0)
		return rc;
	if (cst_slice_is(code, "Success") || cst_slice_is(code, "200"))
		return 0;
	CST_AUTO_BUF text = CST_BUF_INIT;
	cst_text_printable(&text, (struct cst_slice){code.data, cst_min(code.len, (size_t)64)});
	cst_error_set(a->err, EACCES, "can't get credentials from %s", a->name);
	cst_error_why(a->err, "it answered with code %s", text.data ? text.data : "(empty)");
	return -EACCES;
}

static int answer_read(struct answer *a, struct cst_credential *out)
{
	int rc = answer_code(a);
	if (rc == 0)
		rc = answer_field(a, "AccessKeyId", "AccessKeyId", true, out->access_key, sizeof(out->access_key));
	if (rc == 0)
		rc = answer_field(a, "AccessKeySecret|SecretAccessKey", "AccessKeySecret", true, out->secret_key,
				  sizeof(out->secret_key));
	if (rc == 0)
		rc = answer_field(a, "SecurityToken|SessionToken|Token|StsToken", "SecurityToken", false, out->token,
				  sizeof(out->token));
	if (rc < 0)
		return rc;
	struct cst_slice expiry;
	rc = answer_find(a, "Expiration", &expiry);
	if (rc == -ENOENT || (rc == 0 && expiry.len == 0))
		return 0;
	return rc < 0 ? rc : cst_cred_parse_expiry(a->name, expiry, &out->expires, a->err);
}

int cst_cred_parse_answer(const char *name, struct cst_slice text, struct cst_credential *out, struct cst_error *err)
{
	struct answer a = {.name = name, .text = text, .err = err};
	while (a.text.len > 0 && (unsigned char)*a.text.data <= ' ') {
		a.text.data++;
		a.text.len--;
	}
	if (a.text.len == 0)
		return bad_line(err, name, 0, "the answer is empty", "");
	a.xml = a.text.data[0] == '<';
	if (!a.xml) {
		struct cst_slice inner;
		int rc = cst_json_find(a.text, "Credentials", &inner);
		if (rc == -EINVAL)
			return bad_line(err, name, 0, "the answer is not a JSON object",
					"print nothing but the object to standard output");
		if (rc == 0 && inner.len > 0 && inner.data[0] == '{')
			a.text = inner;
	}
	a.scratch = cst_secret_map(CST_ANSWER_SCRATCH);
	int rc = answer_read(&a, out);
	cst_secret_unmap(a.scratch, CST_ANSWER_SCRATCH);
	return rc;
}
