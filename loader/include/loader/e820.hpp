// SPDX-License-Identifier: MIT
#pragma once
// The map of guest-physical memory as firmware would report it. [acpi] 15
#include <array>
#include <lib/guest_memory.hpp>
#include <lib/platform_layout.hpp>
#include <span>

namespace loader {

enum class E820Type : lib::u32 { Ram = 1, Reserved = 2, AcpiReclaimable = 3, AcpiNvs = 4 };
inline constexpr lib::u32 e820_ram = static_cast<lib::u32>(E820Type::Ram);
inline constexpr lib::u32 e820_reserved = static_cast<lib::u32>(E820Type::Reserved);
inline constexpr lib::u32 e820_acpi = static_cast<lib::u32>(E820Type::AcpiReclaimable);

// As boot protocols carry it, without padding.
struct [[gnu::packed]] E820Entry {
    lib::u64 base;
    lib::u64 size;
    lib::u32 type;
};
static_assert(sizeof(E820Entry) == 20);

class E820Map {
public:
    static constexpr std::size_t capacity = 16;
    std::span<E820Entry const> entries() const { return {entries_.data(), count_}; }
    void add(lib::u64 base, lib::u64 end, E820Type type) {
        if (base < end && count_ < capacity) entries_[count_++] = {base, end - base, static_cast<lib::u32>(type)};
    }

private:
    std::array<E820Entry, capacity> entries_{};
    std::size_t count_ = 0;
};

inline constexpr lib::u64 mmio_hole_start = lib::layout::pci_low_window.base; // up to 4 GiB: no RAM
inline constexpr lib::u64 ebda_start = 0x9'fc00;

// `ram_below_4g` counts from address 0 with the holes below 1 MiB, so it is also where low RAM ends. OutOfRange: it
// reaches into the MMIO hole or is less than 1 MiB, or one of the two is no whole number of pages.
lib::Result<E820Map> make_e820_map(lib::u64 ram_below_4g, lib::u64 ram_above_4g);

} // namespace loader
