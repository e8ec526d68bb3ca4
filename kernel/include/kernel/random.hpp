// SPDX-License-Identifier: MIT
#pragma once
// Random numbers of the CPU's own source.
#include <lib/types.hpp>
#include <span>

namespace kernel {

// Returns true if this CPU has RDRAND and its numbers differ. With some firmware, RDRAND of AMD's CPUs gives the same
// number for ever, and says that all is well.
bool has_random();
// Fills `bytes` as far as the source gives numbers, and returns how far. Only where has_random() is true.
lib::u32 random(std::span<lib::u8> bytes);

} // namespace kernel
