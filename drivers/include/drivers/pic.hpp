// SPDX-License-Identifier: MIT
#pragma once
// The machine's two 8259s, which Mullion does not use: they are moved out of the way and masked. [intel/8259a]
#include <lib/types.hpp>

namespace drivers {

// Masks all inputs and moves the vectors to [first_vector, first_vector + 16), because even a masked 8259 may deliver a
// spurious interrupt (its inputs 7 and 15). `first_vector` must be a multiple of 8, 32 or more.
void retire_pics(lib::u8 first_vector);

} // namespace drivers
