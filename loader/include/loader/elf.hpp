// SPDX-License-Identifier: MIT
#pragma once
// ELF32 and ELF64 files for x86, as far as a loader needs them: segments, entry point and the PVH note.
// Not supported: relocation, sections, symbols, big-endian files. [elf] Object files, program headers
#include <expected>
#include <lib/guest_memory.hpp>
#include <lib/types.hpp>
#include <loader/boot_input.hpp>
#include <loader/load_error.hpp>
#include <loader/placement.hpp>
#include <optional>
#include <span>

namespace loader {

using lib::u32;
using lib::u64;
using lib::u8;

// Something to load: bytes of the file, then zeroes up to memory_size.
struct LoadSegment {
    u64 offset;
    u64 file_size;
    u64 memory_size;
    u64 physical;
    u64 virtual_address;
};

class ElfImage {
public:
    static std::expected<ElfImage, LoadError> parse(std::span<u8 const> file);

    bool is_64() const { return is_64_; }
    u64 entry() const { return entry_; } // as in the file: a virtual address
    // Where the entry point is in memory; nothing when no segment holds it.
    std::optional<u64> physical_entry() const;
    // The value of Xen's note 18. [xen/elfnote] XEN_ELFNOTE_PHYS32_ENTRY
    std::optional<u64> pvh_entry() const;
    // Copies all segments, or leaves that to `input.copies`; no two of them may overlap in memory, so that no more is
    // written than there is memory. Answers the range from the lowest to the highest byte.
    std::expected<MemoryRange, LoadError> load(BootInput const& input, lib::GuestMemory const& memory) const;

private:
    std::optional<LoadSegment> segment(u32 index, u32 type) const;
    u64 header_at(u32 index) const { return headers_ + u64{index} * header_size_; }
    bool overlaps_earlier(u32 index, LoadSegment const& segment) const;
    std::optional<u64> pvh_entry_of(LoadSegment const& notes) const;

    std::span<u8 const> file_;
    u64 entry_ = 0;
    u64 headers_ = 0;
    u32 header_size_ = 0;
    u32 header_count_ = 0;
    bool is_64_ = false;
};

bool is_elf(std::span<u8 const> file);

// Copies one segment to RAM that is not the boot area, or leaves that to `input.copies`.
std::expected<MemoryRange, LoadError> load_segment(BootInput const& input, lib::GuestMemory const& memory,
                                                   LoadSegment const& segment);

} // namespace loader
