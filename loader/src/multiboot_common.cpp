// SPDX-License-Identifier: MIT
#include "multiboot_common.hpp"
#include <algorithm>

namespace loader {

std::expected<MemoryRange, LoadError> load_by_addresses(BootInput const& input, lib::GuestMemory const& memory,
                                                        MultibootAddresses const& addresses) {
    auto const bad = [&] {
        return std::unexpected(LoadError{LoadErrorCode::BadMultiboot, 0, addresses.header_offset});
    };
    // The header's place in the file tells where the rest of it belongs. [multiboot1] 3.1.3
    if (addresses.header < addresses.load) return bad();
    u64 const ahead = addresses.header - addresses.load;
    if (ahead > addresses.header_offset) return bad();
    u64 const offset = addresses.header_offset - ahead;
    u64 const available = input.kernel.size() - offset;
    if (addresses.load_end != 0 && addresses.load_end <= addresses.load) return bad();
    u64 const size = addresses.load_end == 0 ? available : addresses.load_end - addresses.load;
    if (size > available)
        return std::unexpected(LoadError{LoadErrorCode::KernelCut, offset + size, input.kernel.size()});
    u64 const bss_end = addresses.bss_end == 0 ? addresses.load + size : addresses.bss_end;
    if (bss_end < addresses.load + size) return bad();
    return load_segment(input, memory,
                        LoadSegment{.offset = offset,
                                    .file_size = size,
                                    .memory_size = bss_end - addresses.load,
                                    .physical = addresses.load,
                                    .virtual_address = addresses.load});
}

std::expected<MultibootKernel, LoadError> load_by_elf(BootInput const& input, lib::GuestMemory const& memory) {
    auto const image = ElfImage::parse(input.kernel);
    if (!image) return std::unexpected(image.error());
    auto const entry = image->physical_entry();
    if (!entry) return std::unexpected(LoadError{LoadErrorCode::EntryOutsideImage, 0, image->entry()});
    auto const range = image->load(input, memory);
    if (!range) return std::unexpected(range.error());
    return MultibootKernel{*range, *entry};
}

std::expected<PlacedModules, LoadError> place_modules(BootInput const& input, lib::GuestMemory const& memory,
                                                      MemoryRange kernel) {
    PlacedModules placed;
    MemoryRange within{lib::MiB, 4 * lib::GiB};
    auto const initrd = load_initrd(input, memory, within.end, kernel);
    if (!initrd) return std::unexpected(initrd.error());
    if (initrd->begin < initrd->end) {
        (void)placed.push_back({*initrd, {}}); // there is room for all
        within.end = initrd->begin;
    }
    u64 characters = 0;
    for (BootModule const& module : input.modules)
        characters += module.text.size() + 1;
    if (characters > boot_module_texts_size || input.modules.size() > max_boot_modules)
        return std::unexpected(LoadError{LoadErrorCode::ModuleTextTooLong, boot_module_texts_size, characters});
    for (BootModule const& module : input.modules) {
        auto const range = place_file(input, memory, module.bytes, within, kernel);
        if (!range && range.error().code == LoadErrorCode::InitrdDoesNotFit)
            return std::unexpected(
                LoadError{LoadErrorCode::ModuleDoesNotFit, range.error().needed, range.error().found});
        if (!range) return std::unexpected(range.error());
        (void)placed.push_back({*range, module.text});
        if (range->begin < range->end) within.end = range->begin;
    }
    return placed;
}

BasicMemory basic_memory(std::span<E820Entry const> map) {
    BasicMemory result{0, 0};
    for (E820Entry const& entry : map) {
        if (entry.type != e820_ram) continue;
        u64 const kib = std::min<u64>(entry.size / lib::KiB, ~u32{0});
        if (entry.base == 0) result.lower = static_cast<u32>(std::min<u64>(kib, 640));
        if (entry.base == lib::MiB) result.upper = static_cast<u32>(kib);
    }
    return result;
}

} // namespace loader
