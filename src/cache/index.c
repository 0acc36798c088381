#include "cache/index.h"
