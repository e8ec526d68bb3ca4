// SPDX-License-Identifier: MIT
#include "byte_reader.hpp"
#include <algorithm>
#include <bit>
#include <loader/boot_area.hpp>
#include <loader/linux_loader.hpp>

namespace loader {
namespace {

// Offsets in the file and, the same, in boot_params. [linux/boot] "Details of Header Fields"
namespace header {
constexpr u32 setup_sects = 0x1f1;
constexpr u32 syssize = 0x1f4;
constexpr u32 vid_mode = 0x1fa;
constexpr u32 boot_flag = 0x1fe;
constexpr u32 jump_offset = 0x201;
constexpr u32 magic = 0x202;
constexpr u32 version = 0x206;
constexpr u32 type_of_loader = 0x210;
constexpr u32 loadflags = 0x211;
constexpr u32 code32_start = 0x214;
constexpr u32 ramdisk_image = 0x218;
constexpr u32 ramdisk_size = 0x21c;
constexpr u32 heap_end_ptr = 0x224;
constexpr u32 cmd_line_ptr = 0x228;
constexpr u32 initrd_addr_max = 0x22c;
constexpr u32 kernel_alignment = 0x230;
constexpr u32 relocatable_kernel = 0x234;
constexpr u32 xloadflags = 0x236;
constexpr u32 cmdline_size = 0x238;
constexpr u32 setup_data = 0x250;
constexpr u32 pref_address = 0x258;
constexpr u32 init_size = 0x260;
} // namespace header

// [linux/zero-page]
namespace zero_page {
constexpr u32 acpi_rsdp_addr = 0x070;
constexpr u32 ext_ramdisk_image = 0x0c0;
constexpr u32 ext_ramdisk_size = 0x0c4;
constexpr u32 e820_entries = 0x1e8;
constexpr u32 header_limit = 0x290;
constexpr u32 e820_table = 0x2d0;
constexpr u64 most_e820_entries = 128;
constexpr u64 e820_entry_size = 20;
} // namespace zero_page

constexpr u32 magic_value = 0x53726448; // "HdrS"
constexpr u8 loaded_high = 1U << 0;
constexpr u16 xlf_kernel_64 = 1U << 0;
constexpr u16 xlf_can_be_loaded_above_4g = 1U << 1;
constexpr u64 entry_64_offset = 0x200;
constexpr u8 undefined_loader = 0xff;
constexpr u16 video_mode_normal = 0xffff;
constexpr u32 default_alignment = 0x200000;

std::unexpected<LoadError> fail(LoadErrorCode code, u64 needed = 0, u64 found = 0) {
    return std::unexpected(LoadError{code, needed, found});
}

// Where the kernel goes: its preferred address, or the lowest place if it can be moved.
std::expected<MemoryRange, LoadError> place_kernel(BootInput const& input, LinuxHeader const& image) {
    PlacementRequest const request{.size = image.run_size,
                                   .alignment = image.alignment,
                                   .within = {lib::MiB, boot_identity_map_size},
                                   .avoid = {}};
    bool const low = image.preferred >= lib::MiB && image.preferred < boot_identity_map_size &&
                     image.run_size <= boot_identity_map_size - image.preferred;
    if (low && is_ram(input.memory_map, image.preferred, image.run_size))
        return MemoryRange{image.preferred, image.preferred + image.run_size};
    if (!image.relocatable) return fail(LoadErrorCode::KernelAddressNotFree, image.preferred, image.run_size);
    std::optional<u64> const at = place_low(input.memory_map, request);
    if (!at) return fail(LoadErrorCode::KernelDoesNotFit, image.run_size, largest_free(input.memory_map, request));
    return MemoryRange{*at, *at + image.run_size};
}

// Fields of boot_params, through a sink that remembers the first failure.
class ParameterWriter {
public:
    explicit ParameterWriter(lib::GuestMemory const& memory) : memory_(memory) {}
    template <typename T> void put(u64 offset, T value) {
        ok_ = memory_.write(boot_parameters + offset, value).has_value() && ok_;
    }
    void put_bytes(u64 offset, std::span<u8 const> bytes) {
        ok_ = memory_.write(boot_parameters + offset, bytes).has_value() && ok_;
    }
    BootStep result() const {
        if (!ok_) return fail(LoadErrorCode::MapMismatch, boot_parameters.value);
        return {};
    }

private:
    lib::GuestMemory const& memory_;
    bool ok_ = true;
};

BootStep write_boot_parameters(BootInput const& input, LinuxHeader const& image, u64 load_address, MemoryRange initrd,
                               lib::GuestMemory const& memory) {
    if (input.memory_map.size() > zero_page::most_e820_entries)
        return fail(LoadErrorCode::TooManyRanges, zero_page::most_e820_entries, input.memory_map.size());
    ByteReader const file(input.kernel);
    ParameterWriter out(memory);
    u32 const end = std::min(image.header_end, zero_page::header_limit);
    out.put_bytes(header::setup_sects, file.slice(header::setup_sects, end - header::setup_sects));
    out.put(header::type_of_loader, undefined_loader);
    // No heap in low memory for the 16-bit code, which does not run; let the kernel talk.
    out.put(header::loadflags, loaded_high);
    out.put(header::heap_end_ptr, u16{0});
    out.put(header::vid_mode, video_mode_normal);
    out.put(header::code32_start, static_cast<u32>(load_address));
    out.put(header::cmd_line_ptr, static_cast<u32>(boot_command_line.value));
    out.put(header::setup_data, u64{0});
    u64 const initrd_size = initrd.end - initrd.begin;
    out.put(header::ramdisk_image, static_cast<u32>(initrd.begin));
    out.put(header::ramdisk_size, static_cast<u32>(initrd_size));
    out.put(zero_page::ext_ramdisk_image, static_cast<u32>(initrd.begin >> 32));
    out.put(zero_page::ext_ramdisk_size, static_cast<u32>(initrd_size >> 32));
    out.put(zero_page::acpi_rsdp_addr, input.rsdp.value);
    out.put(zero_page::e820_entries, static_cast<u8>(input.memory_map.size()));
    u64 at = zero_page::e820_table;
    for (E820Entry const& entry : input.memory_map) {
        out.put(at, entry.base);
        out.put(at + 8, entry.size);
        out.put(at + 16, entry.type);
        at += zero_page::e820_entry_size;
    }
    return out.result();
}

} // namespace

std::expected<LinuxHeader, LoadError> read_linux_header(std::span<u8 const> kernel) {
    ByteReader const file(kernel);
    if (!file.has(0, header::version + 2)) return fail(LoadErrorCode::KernelCut, header::version + 2, file.size());
    u32 const magic = file.get<u32>(header::magic);
    if (magic != magic_value || file.get<u16>(header::boot_flag) != 0xaa55)
        return fail(LoadErrorCode::NotLinux, magic_value, magic);
    LinuxHeader image{};
    image.version = file.get<u16>(header::version);
    if (image.version < 0x206) return fail(LoadErrorCode::LinuxTooOld, 0x206, image.version);
    if ((file.get<u8>(header::loadflags) & loaded_high) == 0) return fail(LoadErrorCode::LinuxNotHigh);

    // The jump at 0x200 leads over the header. A field behind its end does not exist, whatever the version says.
    image.header_end = header::magic + file.get<u8>(header::jump_offset);
    u32 const sectors = file.get<u8>(header::setup_sects);
    image.code_offset = ((sectors == 0 ? 4 : sectors) + 1) * 512;
    u64 const code_size = u64{file.get<u32>(header::syssize)} * 16;
    u64 const whole = std::max<u64>(image.code_offset + std::max<u64>(code_size, 1), image.header_end);
    // The last paragraph may be cut.
    if (file.size() + 15 < whole) return fail(LoadErrorCode::KernelCut, whole, file.size());
    if (file.size() <= image.code_offset || file.size() < image.header_end)
        return fail(LoadErrorCode::KernelCut, whole, file.size());

    auto const has = [&](u16 version, u32 field_end) {
        return image.version >= version && image.header_end >= field_end;
    };
    u16 const flags = has(0x20c, header::xloadflags + 2) ? file.get<u16>(header::xloadflags) : u16{0};
    image.is_64 = (flags & xlf_kernel_64) != 0;
    image.above_4g = (flags & xlf_can_be_loaded_above_4g) != 0;
    image.relocatable = file.get<u8>(header::relocatable_kernel) != 0;
    u32 const alignment = file.get<u32>(header::kernel_alignment);
    image.alignment = std::has_single_bit(alignment) ? std::max(alignment, 4096U) : default_alignment;
    image.initrd_end = u64{file.get<u32>(header::initrd_addr_max)} + 1;
    image.command_line_size = file.get<u32>(header::cmdline_size);
    u64 const present = file.size() - image.code_offset;
    bool const sized = has(0x20a, header::init_size + 4);
    image.preferred = sized ? file.get<u64>(header::pref_address) : lib::MiB;
    // Older kernels do not say what they need to unpack themselves; they unpack to a few times their size.
    image.run_size = std::max<u64>(sized ? file.get<u32>(header::init_size) : present * 4, present);
    return image;
}

LoadResult load_linux(BootInput const& input, lib::GuestMemory const& memory) {
    auto const image = read_linux_header(input.kernel);
    if (!image) return std::unexpected(image.error());
    auto const kernel = place_kernel(input, *image);
    if (!kernel) return std::unexpected(kernel.error());
    if (auto const done = prepare_boot_area(input, memory); !done) return std::unexpected(done.error());
    if (auto const done = write_command_line(input, memory, image->command_line_size); !done)
        return std::unexpected(done.error());
    constexpr u64 highest = u64{1} << 46; // what four-level page tables of a kernel map at least
    // Below 4 GiB if possible: every kernel and every debugging aid finds it there.
    auto initrd = load_initrd(input, memory, std::min(image->initrd_end, 4 * lib::GiB), *kernel);
    if (!initrd && image->above_4g) initrd = load_initrd(input, memory, highest, *kernel);
    if (!initrd) return std::unexpected(initrd.error());

    auto const code = input.kernel.subspan(image->code_offset);
    if (auto const done = copy_in_later(input, memory, kernel->begin, code); !done)
        return std::unexpected(done.error());
    if (auto const done = write_boot_parameters(input, *image, kernel->begin, *initrd, memory); !done)
        return std::unexpected(done.error());

    auto state = make_entry_state(memory, image->is_64 ? EntryMode::Long64 : EntryMode::Protected32);
    if (!state) return state;
    state->rip = kernel->begin + (image->is_64 ? entry_64_offset : 0);
    state->rsi = boot_parameters.value;
    return state;
}

} // namespace loader
