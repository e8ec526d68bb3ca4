// SPDX-License-Identifier: MIT
// A library needs a source file; this one has the precompiled headers.
#include "headers.hpp"
