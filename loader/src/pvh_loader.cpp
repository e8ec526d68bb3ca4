// SPDX-License-Identifier: MIT
#include <loader/boot_area.hpp>
#include <loader/elf.hpp>
#include <loader/pvh_loader.hpp>

namespace loader {
namespace {

// [xen/pvh] hvm_start_info, version 1
struct StartInfo {
    u32 magic = 0x336ec578;
    u32 version = 1;
    u32 flags = 0;
    u32 module_count = 0;
    u64 module_list = 0;
    u64 command_line = 0;
    u64 rsdp = 0;
    u64 memory_map = 0;
    u32 memory_map_count = 0;
    u32 reserved = 0;
};
static_assert(sizeof(StartInfo) == 56);

struct StartModule {
    u64 address;
    u64 size;
    u64 command_line;
    u64 reserved;
};
static_assert(sizeof(StartModule) == 32);

struct StartMemory {
    u64 address;
    u64 size;
    u32 type;
    u32 reserved;
};
static_assert(sizeof(StartMemory) == 24);

constexpr u64 most_ranges = lib::page_size / sizeof(StartMemory);

BootStep write_start_info(BootInput const& input, lib::GuestMemory const& memory, MemoryRange initrd) {
    if (input.memory_map.size() > most_ranges)
        return std::unexpected(LoadError{LoadErrorCode::TooManyRanges, most_ranges, input.memory_map.size()});
    StartInfo info;
    info.command_line = boot_command_line.value;
    info.rsdp = input.rsdp.value;
    info.memory_map = boot_memory_map.value;
    info.memory_map_count = static_cast<u32>(input.memory_map.size());
    bool ok = true;
    if (initrd.begin < initrd.end) {
        info.module_count = 1;
        info.module_list = boot_module_list.value;
        ok = memory.write(boot_module_list, StartModule{initrd.begin, initrd.end - initrd.begin, 0, 0}).has_value();
    }
    GuestPhys at = boot_memory_map;
    for (E820Entry const& entry : input.memory_map) {
        ok = memory.write(at, StartMemory{entry.base, entry.size, entry.type, 0}).has_value() && ok;
        at += sizeof(StartMemory);
    }
    ok = memory.write(boot_parameters, info).has_value() && ok;
    if (!ok) return std::unexpected(LoadError{LoadErrorCode::MapMismatch, boot_parameters.value, 0});
    return {};
}

LoadResult load_image(BootInput const& input, lib::GuestMemory const& memory, ElfImage const& image, u64 entry,
                      EntryMode mode) {
    if (auto const done = prepare_boot_area(input, memory); !done) return std::unexpected(done.error());
    auto const loaded = image.load(input, memory);
    if (!loaded) return std::unexpected(loaded.error());
    // Both modes see no more than the first 4 GiB.
    if (entry < loaded->begin || entry >= loaded->end || entry >= boot_identity_map_size)
        return std::unexpected(LoadError{LoadErrorCode::EntryOutsideImage, 0, entry});
    auto const initrd = load_initrd(input, memory, 4 * lib::GiB, *loaded);
    if (!initrd) return std::unexpected(initrd.error());
    if (auto const done = write_command_line(input, memory, boot_command_line_size); !done)
        return std::unexpected(done.error());
    if (auto const done = write_start_info(input, memory, *initrd); !done) return std::unexpected(done.error());
    auto state = make_entry_state(memory, mode);
    if (!state) return state;
    state->rip = entry;
    state->rbx = boot_parameters.value;
    return state;
}

} // namespace

LoadResult load_pvh(BootInput const& input, lib::GuestMemory const& memory) {
    auto const image = ElfImage::parse(input.kernel);
    if (!image) return std::unexpected(image.error());
    auto const entry = image->pvh_entry();
    if (!entry) return std::unexpected(LoadError{LoadErrorCode::NoPvhEntry, 0, 0});
    return load_image(input, memory, *image, *entry, EntryMode::Protected32);
}

LoadResult load_elf(BootInput const& input, lib::GuestMemory const& memory) {
    auto const image = ElfImage::parse(input.kernel);
    if (!image) return std::unexpected(image.error());
    auto const entry = image->physical_entry();
    if (!entry) return std::unexpected(LoadError{LoadErrorCode::EntryOutsideImage, 0, image->entry()});
    return load_image(input, memory, *image, *entry, image->is_64() ? EntryMode::Long64 : EntryMode::Protected32);
}

} // namespace loader
