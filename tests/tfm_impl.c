/* The one object of the header that the tests link with. */
#define TFM_IMPLEMENTATION
#include "tfm.h"
