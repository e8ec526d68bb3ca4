// SPDX-License-Identifier: MIT
#include "multiboot_common.hpp"
#include <algorithm>
#include <loader/multiboot_loader.hpp>

namespace loader {
namespace {

// [multiboot1] 3.1.2: the lower half must be understood, the upper half is advice.
constexpr u32 header_magic = 0x1badb002;
constexpr u32 loaded_magic = 0x2badb002;
constexpr u64 search_limit = 8192;
constexpr u32 flag_align_modules = 1U << 0;
constexpr u32 flag_memory_info = 1U << 1;
constexpr u32 flag_video_mode = 1U << 2; // asked for; like a loader without a screen, none is set
constexpr u32 flag_addresses = 1U << 16;
constexpr u32 required_flags = 0xffff;
constexpr u32 understood_flags = flag_align_modules | flag_memory_info | flag_video_mode;

// [multiboot1] 3.3
struct Information {
    u32 flags = 0;
    u32 memory_lower = 0;
    u32 memory_upper = 0;
    u32 boot_device = 0;
    u32 command_line = 0;
    u32 module_count = 0;
    u32 module_list = 0;
    u32 symbols[4] = {};
    u32 map_length = 0;
    u32 map_address = 0;
    u32 drives_length = 0;
    u32 drives_address = 0;
    u32 config_table = 0;
    u32 loader_name = 0;
};
static_assert(sizeof(Information) == 68);
constexpr u32 has_memory = 1U << 0;
constexpr u32 has_command_line = 1U << 2;
constexpr u32 has_modules = 1U << 3;
constexpr u32 has_map = 1U << 6;
constexpr u32 has_loader_name = 1U << 9;

struct [[gnu::packed]] MapEntry {
    u32 size;
    u64 base;
    u64 length;
    u32 type;
};
static_assert(sizeof(MapEntry) == 24);
constexpr u64 most_ranges = lib::page_size / sizeof(MapEntry);

struct Module {
    u32 begin;
    u32 end;
    u32 text;
    u32 reserved;
};

BootStep write_information(BootInput const& input, lib::GuestMemory const& memory, PlacedModules const& modules) {
    if (input.memory_map.size() > most_ranges)
        return std::unexpected(LoadError{LoadErrorCode::TooManyRanges, most_ranges, input.memory_map.size()});
    BasicMemory const basic = basic_memory(input.memory_map);
    GuestPhys const name = boot_module_list + lib::page_size / 2;
    Information info;
    info.flags = has_memory | has_command_line | has_modules | has_map | has_loader_name;
    info.memory_lower = basic.lower;
    info.memory_upper = basic.upper;
    info.command_line = static_cast<u32>(boot_command_line.value);
    info.module_list = static_cast<u32>(boot_module_list.value);
    info.map_length = static_cast<u32>(input.memory_map.size() * sizeof(MapEntry));
    info.map_address = static_cast<u32>(boot_memory_map.value);
    info.loader_name = static_cast<u32>(name.value);
    bool ok = true;
    info.module_count = static_cast<u32>(modules.size());
    GuestPhys entry_at = boot_module_list, text_at = boot_module_texts;
    for (PlacedModule const& module : modules) {
        Module const entry{static_cast<u32>(module.range.begin), static_cast<u32>(module.range.end),
                           static_cast<u32>(text_at.value), 0};
        std::span<u8 const> const bytes(reinterpret_cast<u8 const*>(module.text.data()), module.text.size());
        ok = memory.write(entry_at, entry).has_value() && memory.write(text_at, bytes).has_value() && ok;
        entry_at += sizeof(Module);
        text_at += module.text.size() + 1; // after each text comes a zero: the area was cleared
    }
    GuestPhys at = boot_memory_map;
    for (E820Entry const& entry : input.memory_map) {
        MapEntry const out{sizeof(MapEntry) - sizeof(u32), entry.base, entry.size, entry.type};
        ok = memory.write(at, out).has_value() && ok;
        at += sizeof(MapEntry);
    }
    std::span<u8 const> const text(reinterpret_cast<u8 const*>(boot_loader_name.data()), boot_loader_name.size());
    ok = memory.write(name, text).has_value() && memory.write(boot_parameters, info).has_value() && ok;
    if (!ok) return std::unexpected(LoadError{LoadErrorCode::MapMismatch, boot_parameters.value, 0});
    return {};
}

std::expected<MultibootKernel, LoadError> load_kernel(BootInput const& input, lib::GuestMemory const& memory,
                                                      u64 header) {
    ByteReader const reader(input.kernel);
    if ((reader.get<u32>(header + 4) & flag_addresses) == 0) return load_by_elf(input, memory);
    if (!reader.has(header, 32)) return std::unexpected(LoadError{LoadErrorCode::BadMultiboot, 0, header});
    auto const range = load_by_addresses(input, memory,
                                         MultibootAddresses{.header_offset = header,
                                                            .header = reader.get<u32>(header + 12),
                                                            .load = reader.get<u32>(header + 16),
                                                            .load_end = reader.get<u32>(header + 20),
                                                            .bss_end = reader.get<u32>(header + 24)});
    if (!range) return std::unexpected(range.error());
    return MultibootKernel{*range, reader.get<u32>(header + 28)};
}

} // namespace

std::optional<u64> find_multiboot1_header(std::span<u8 const> kernel) {
    ByteReader const reader(kernel);
    for (u64 at = 0; at + 12 <= search_limit && reader.has(at, 12); at += 4)
        if (reader.get<u32>(at) == header_magic &&
            header_magic + reader.get<u32>(at + 4) + reader.get<u32>(at + 8) == 0)
            return at;
    return std::nullopt;
}

LoadResult load_multiboot1(BootInput const& input, lib::GuestMemory const& memory) {
    auto const header = find_multiboot1_header(input.kernel);
    if (!header) return std::unexpected(LoadError{LoadErrorCode::UnknownImage, 0, 0});
    u32 const flags = ByteReader(input.kernel).get<u32>(*header + 4);
    if (u32 const missing = flags & required_flags & ~understood_flags; missing != 0)
        return std::unexpected(LoadError{LoadErrorCode::MultibootFeature, 0, missing});
    if (auto const done = prepare_boot_area(input, memory); !done) return std::unexpected(done.error());
    auto const kernel = load_kernel(input, memory, *header);
    if (!kernel) return std::unexpected(kernel.error());
    if (kernel->entry < kernel->range.begin || kernel->entry >= kernel->range.end || kernel->range.end > 4 * lib::GiB)
        return std::unexpected(LoadError{LoadErrorCode::EntryOutsideImage, 0, kernel->entry});
    auto const modules = place_modules(input, memory, kernel->range);
    if (!modules) return std::unexpected(modules.error());
    if (auto const done = write_command_line(input, memory, boot_command_line_size); !done)
        return std::unexpected(done.error());
    if (auto const done = write_information(input, memory, *modules); !done) return std::unexpected(done.error());
    auto state = make_entry_state(memory, EntryMode::Protected32);
    if (!state) return state;
    state->rip = kernel->entry;
    state->rax = loaded_magic;
    state->rbx = boot_parameters.value;
    return state;
}

} // namespace loader
