// SPDX-License-Identifier: MIT
// Whatever a loader leaves in memory: no read outside it, no endless walk, and what is given out lies inside.
#include "require.hpp"

#include <boot/multiboot2.hpp>
#include <config/command_line.hpp>

#include <array>
#include <cstring>
#include <vector>

namespace {

using fuzz::require;

void check_inside(std::vector<lib::u8> const& bytes, void const* begin, std::size_t size) {
    if (size == 0) return;
    auto const* const at = static_cast<lib::u8 const*>(begin);
    require(at >= bytes.data() && at + size <= bytes.data() + bytes.size());
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(lib::u8 const* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(lib::u8 const* data, std::size_t size) {
    // Half of the runs say the truth about the size, to get past the first check.
    std::vector<lib::u8> bytes(data, data + size);
    if (size >= 8 && (data[4] & 1) == 0) {
        auto const total = static_cast<lib::u32>(size);
        std::memcpy(bytes.data(), &total, sizeof(total));
    }
    auto const info = boot::Multiboot2::parse(bytes);
    if (!info) return 0;
    auto const text = info->command_line();
    check_inside(bytes, text.data(), text.size());
    for (lib::u32 i = 0; i < info->module_count(); i++) {
        auto const module = info->module(i);
        require(module && module->end >= module->start);
        check_inside(bytes, module->string.data(), module->string.size());
    }
    for (lib::u32 i = 0; i < info->memory_range_count(); i++)
        if (auto const range = info->memory_range(i)) require(range->base.value + range->size > range->base.value);
    if (auto const screen = info->framebuffer())
        require(screen->address.value + lib::u64{screen->pitch} * screen->height >= screen->address.value);
    for (auto const piece : {info->rsdp_old(), info->rsdp_new(), info->smbios()})
        check_inside(bytes, piece.data(), piece.size());
    config::Options options;
    std::array<char, 256> buffer{};
    lib::BufferSink sink(buffer);
    config::parse_command_line(text, options, sink);
    require(options.cpus <= 512);
    return 0;
}
