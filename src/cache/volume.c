#include "cache/volume.h"
