// SPDX-License-Identifier: MIT
#include <array>
#include <loader/boot_area.hpp>

namespace loader {
namespace {

// [intel/vol3] 3.4.5: flat, present, ring 0, accessed.
constexpr u64 code_64 = 0x00af'9b00'0000'ffff;
constexpr u64 code_32 = 0x00cf'9b00'0000'ffff;
constexpr u64 data = 0x00cf'9300'0000'ffff;

// [intel/vol3] 4.5: present, writable; of a directory entry: 2 MiB page.
constexpr u64 table_entry = 0x3;
constexpr u64 large_page_entry = 0x83;
constexpr u64 large_page = 2 * lib::MiB;

std::unexpected<LoadError> mismatch(u64 at) { return std::unexpected(LoadError{LoadErrorCode::MapMismatch, at, 0}); }

BootStep write_identity_map(lib::GuestMemory const& memory) {
    u64 const pdpt = boot_page_tables.value + lib::page_size;
    u64 const directories = pdpt + lib::page_size;
    if (!memory.write(boot_page_tables, pdpt | table_entry)) return mismatch(boot_page_tables.value);
    for (u64 i = 0; i < boot_identity_map_size / lib::GiB; ++i)
        if (!memory.write(GuestPhys{pdpt + i * 8}, (directories + i * lib::page_size) | table_entry))
            return mismatch(pdpt);
    std::array<u64, 64> entries{};
    for (u64 at = 0; at < boot_identity_map_size; at += entries.size() * large_page) {
        for (u64 i = 0; i < entries.size(); ++i)
            entries[i] = (at + i * large_page) | large_page_entry;
        if (!memory.write(GuestPhys{directories + at / large_page * 8}, entries)) return mismatch(directories);
    }
    return {};
}

} // namespace

BootStep prepare_boot_area(BootInput const& input, lib::GuestMemory const& memory) {
    u64 const size = boot_area.end - boot_area.begin;
    if (!is_ram(input.memory_map, boot_area.begin, size))
        return std::unexpected(LoadError{LoadErrorCode::BootAreaMissing, boot_area.begin, size});
    GuestPhys const begin{boot_area.begin};
    bool const is_done = input.is_memory_zero ? memory.contains(begin, size) : memory.fill(begin, size, 0).has_value();
    if (!is_done) return mismatch(boot_area.begin);
    return {};
}

BootStep write_command_line(BootInput const& input, lib::GuestMemory const& memory, u64 limit) {
    u64 const most = limit < boot_command_line_size - 1 ? limit : boot_command_line_size - 1;
    std::string_view const line = input.command_line;
    if (line.size() > most) return std::unexpected(LoadError{LoadErrorCode::CommandLineTooLong, most, line.size()});
    // The area was cleared: the zero behind the line is there.
    return copy_in(memory, boot_command_line.value, {reinterpret_cast<u8 const*>(line.data()), line.size()});
}

std::expected<EntryState, LoadError> make_entry_state(lib::GuestMemory const& memory, EntryMode mode) {
    // The selectors of the Linux boot protocol, __BOOT_CS and __BOOT_DS; the others do not care. [linux/boot]
    std::array<u64, 4> const gdt{0, 0, mode == EntryMode::Long64 ? code_64 : code_32, data};
    if (!memory.write(boot_gdt, gdt)) return mismatch(boot_gdt.value);
    EntryState state;
    state.mode = mode;
    state.rsp = boot_gdt.value + lib::page_size;
    state.gdt_base = boot_gdt.value;
    state.gdt_limit = sizeof gdt - 1;
    state.code_selector = 0x10;
    state.data_selector = 0x18;
    if (mode == EntryMode::Long64) {
        if (auto const done = write_identity_map(memory); !done) return std::unexpected(done.error());
        state.cr3 = boot_page_tables.value;
    }
    return state;
}

BootStep copy_in(lib::GuestMemory const& memory, u64 at, std::span<u8 const> bytes) {
    if (!memory.write(GuestPhys{at}, bytes)) return mismatch(at);
    return {};
}

BootStep copy_in_later(BootInput const& input, lib::GuestMemory const& memory, u64 at, std::span<u8 const> bytes) {
    if (!memory.contains(GuestPhys{at}, bytes.size())) return mismatch(at);
    if (input.copies != nullptr && input.copies->add(GuestPhys{at}, bytes)) return {};
    return copy_in(memory, at, bytes);
}

std::expected<MemoryRange, LoadError> load_initrd(BootInput const& input, lib::GuestMemory const& memory, u64 limit,
                                                  MemoryRange kernel) {
    return place_file(input, memory, input.initrd, {lib::MiB, limit}, kernel);
}

std::expected<MemoryRange, LoadError> place_file(BootInput const& input, lib::GuestMemory const& memory,
                                                 std::span<u8 const> bytes, MemoryRange within, MemoryRange kernel) {
    u64 const size = bytes.size();
    if (size == 0) return MemoryRange{};
    PlacementRequest const request{.size = size, .alignment = lib::page_size, .within = within, .avoid = kernel};
    std::optional<u64> const at = place_high(input.memory_map, request);
    if (!at)
        return std::unexpected(
            LoadError{LoadErrorCode::InitrdDoesNotFit, size, largest_free(input.memory_map, request)});
    if (auto const done = copy_in_later(input, memory, *at, bytes); !done) return std::unexpected(done.error());
    return MemoryRange{*at, *at + size};
}

} // namespace loader
