// SPDX-License-Identifier: MIT
#pragma once
// How much of what there may be. A larger number costs memory in tables of that many entries.
#include <lib/types.hpp>

namespace lib {

inline constexpr u32 max_cpus = 256; // of the machine
inline constexpr u32 max_vms = 16;
inline constexpr u32 max_vcpus = 32; // of one VM

} // namespace lib
