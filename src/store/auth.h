/* Who asks, and may they? Worker threads. */
#pragma once

#include "store/answer.h"

/* Checks signature, clock, token and the key's bucket. False: the request has been answered. */
CST_MUST_USE bool cst_auth_check(struct cst_store_request *r);
