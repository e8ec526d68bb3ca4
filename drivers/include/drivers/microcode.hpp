// SPDX-License-Identifier: MIT
#pragma once
// Microcode updates from files of the CPU's maker: Intel's updates one after the other ([intel/vol3] 10.11), AMD's
// containers ([linux/amd-ucode]). The files are foreign input: every length is checked, and what does not fit is
// skipped. The CPU itself checks the signature of what it loads. Not supported: files inside of a cpio archive, updates
// of a CPU whose siblings run guests.
#include <lib/types.hpp>
#include <optional>
#include <span>

namespace drivers {

using lib::u32;
using lib::u64;
using lib::u8;

struct MicrocodeTarget {
    bool is_amd = false;
    u32 signature = 0;      // CPUID 1 EAX
    u32 platform_flags = 0; // Intel: one bit, from IA32_PLATFORM_ID
    u32 revision = 0;       // what runs now
};

struct MicrocodeUpdate {
    u32 revision = 0;
    std::span<u8 const> bytes; // the CPU gets the address of the first
};

// The newest update in `file` for this CPU; none that is not newer than what runs.
std::optional<MicrocodeUpdate> find_microcode(std::span<u8 const> file, MicrocodeTarget const& target);

// The revision that the calling CPU runs; 0: it does not tell.
u32 microcode_revision(bool is_amd);

struct MicrocodeResult {
    u32 before = 0;
    u32 after = 0;
    bool was_refused = false; // there was an update, and the CPU did not take it
};
// Loads the newest update that any of the files has for the calling CPU. #GP must have its handler: CPUs and
// hypervisors without updates raise it. Does nothing in a virtual machine: its CPU is not ours to update.
MicrocodeResult update_microcode(std::span<std::span<u8 const> const> files, bool is_amd);

} // namespace drivers
