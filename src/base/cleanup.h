/* Scope-bound cleanup, ownership transfer and object magic. Header only; any thread.
 *
 * CST_CLEANUP(fn) calls fn(&variable) when the variable leaves its scope. cst_steal() takes a pointer out of a
 * variable so that its cleanup finds NULL. CST_CHECK() stops the process when a long-lived object is not what its
 * pointer says (freed, overwritten, wrong type); it stays on in release builds. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define CST_CLEANUP(fn) __attribute__((cleanup(fn)))
#define CST_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define CST_MUST_USE __attribute__((warn_unused_result))
#define CST_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define cst_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
/* Each evaluates its arguments once; the counter keeps nested uses from shadowing each other. */
#define cst_min(a, b) cst_pick_(<, a, b, __COUNTER__)
#define cst_max(a, b) cst_pick_(>, a, b, __COUNTER__)
#define cst_pick_(op, a, b, n) cst_pick__(op, a, b, n)
#define cst_pick__(op, a, b, n)                 \
	({                                      \
		__typeof__(a) _a##n = (a);      \
		__typeof__(b) _b##n = (b);      \
		_a##n op _b##n ? _a##n : _b##n; \
	})

static inline void cst_free_ptr(void *p)
{
	free(*(void **)p);
}
static inline void cst_close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define CST_AUTO_FREE CST_CLEANUP(cst_free_ptr)
#define CST_AUTO_CLOSE CST_CLEANUP(cst_close_fd)

#define cst_steal(var)                           \
	({                                       \
		__typeof__(var) _stolen = (var); \
		(var) = NULL;                    \
		_stolen;                         \
	})
static inline int cst_steal_fd(int *fd)
{
	int stolen = *fd;
	*fd = -1;
	return stolen;
}

/* Prints file, line and text to standard error and aborts. */
_Noreturn void cst_panic(const char *file, int line, const char *fmt, ...) CST_PRINTF(3, 4);
#define CST_CHECK(obj, magic_value)                                                                        \
	do {                                                                                               \
		if (__builtin_expect(!(obj) || (obj)->magic != (magic_value), 0))                          \
			cst_panic(__FILE__, __LINE__, "%s is not a live object (" #magic_value ")", #obj); \
	} while (0)
#define CST_ASSERT(cond)                                                              \
	do {                                                                          \
		if (__builtin_expect(!(cond), 0))                                     \
			cst_panic(__FILE__, __LINE__, "assertion failed: %s", #cond); \
	} while (0)

/* Allocation of small control structures: out of memory ends the process with a message (the data buffers, which
 * are what is large, come from the memory budget and fail with ENOMEM instead). */
void *cst_xmalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *cst_xcalloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
void *cst_xrealloc(void *p, size_t size) __attribute__((returns_nonnull));
char *cst_xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
char *cst_xstrndup(const char *s, size_t len) __attribute__((malloc, returns_nonnull));
char *cst_xasprintf(const char *fmt, ...) CST_PRINTF(1, 2) __attribute__((malloc, returns_nonnull));
#define CST_NEW(type) ((type *)cst_xcalloc(1, sizeof(type)))

/* Reference counts. The last unref acquires what other owners released. */
struct cst_ref {
	int count;
};
static inline void cst_ref_init(struct cst_ref *r)
{
	__atomic_store_n(&r->count, 1, __ATOMIC_RELAXED);
}
static inline void cst_ref_get(struct cst_ref *r)
{
	int before = __atomic_fetch_add(&r->count, 1, __ATOMIC_RELAXED);
	CST_ASSERT(before > 0);
}
/* True when this was the last reference. */
static inline bool cst_ref_put(struct cst_ref *r)
{
	int before = __atomic_fetch_sub(&r->count, 1, __ATOMIC_ACQ_REL);
	CST_ASSERT(before > 0);
	return before == 1;
}
