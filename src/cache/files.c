#include "cache/files.h"
