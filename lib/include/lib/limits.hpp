// SPDX-License-Identifier: MIT
#pragma once
// How much of what there may be. A larger number costs memory in tables of that many entries.
#include <lib/types.hpp>

namespace lib {

inline constexpr u32 max_cpus = 256; // of the machine
inline constexpr u32 max_vms = 16;
inline constexpr u32 max_vcpus = 32;                            // of one VM
inline constexpr u32 max_disks = 4;                             // of one VM
inline constexpr u32 max_nics = 2;                              // of one VM
inline constexpr u32 max_served_devices = max_disks + max_nics; // of one VM: disks, then NICs
inline constexpr u32 max_networks = 8;
inline constexpr u32 max_disk_queues = 4;
inline constexpr u64 max_disk_transfer = 16 * MiB; // that one request moves
// Sectors of 512 bytes that one request to discard or to write zeroes may name: a bound for the work of one request.
inline constexpr u32 max_cleared_sectors = 8192;

} // namespace lib
