/* What a mount must not lose when the process that serves it dies, and the process that keeps it: doc/supervisor.md. */
#pragma once

#include "supervisor/opens.h"
#include "supervisor/outcome.h"
#include "supervisor/state.h"
