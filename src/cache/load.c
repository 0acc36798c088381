#include "cache/load.h"
