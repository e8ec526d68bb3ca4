// SPDX-License-Identifier: MIT
#pragma once
// The boot information that a Multiboot2 loader leaves in memory. [multiboot2] 3.6
// Everything in it is checked: a broken tag list is read up to the break and is_complete() is then false.
#include <lib/byte_view.hpp>
#include <lib/result.hpp>
#include <lib/types.hpp>
#include <optional>
#include <span>
#include <string_view>

namespace boot {

using lib::HostPhys;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

inline constexpr u32 multiboot2_bootloader_magic = 0x36d7'6289; // in EAX at entry

struct BootModule {
    HostPhys start;
    HostPhys end; // first byte behind
    std::string_view string;
    u64 size() const { return end - start; }
};

enum class MemoryType : u32 { Available = 1, Reserved = 2, AcpiReclaimable = 3, AcpiNvs = 4, Bad = 5 };

struct MemoryRange {
    HostPhys base;
    u64 size;        // base + size does not overflow
    MemoryType type; // other numbers than the named ones mean reserved
    bool is_available() const { return type == MemoryType::Available; }
};

struct BasicMemory { // KiB
    u32 lower;
    u32 upper;
};

struct Framebuffer {
    enum class Kind : u8 { Indexed = 0, Rgb = 1, Text = 2 };
    struct Field { // where a colour component sits in a pixel
        u8 position;
        u8 width;
    };
    HostPhys address;
    u32 pitch; // bytes from one line to the next
    u32 width;
    u32 height;
    u8 bits_per_pixel;
    Kind kind;
    Field red, green, blue; // only for Kind::Rgb
};

class Multiboot2 {
public:
    // Longest boot information that is believed; loaders make a few KiB, the memory map and EFI maps included.
    static constexpr u32 max_size = 1024 * 1024;

    // From the first 8 bytes: how many there are in all. BadFormat if that cannot be.
    static lib::Result<u32> total_size(std::span<u8 const> header);
    // `bytes` must stay where they are as long as the result, and texts taken from it, are used.
    static lib::Result<Multiboot2> parse(std::span<u8 const> bytes);

    // The tag list ends with an end tag, with nothing wrong before it.
    bool is_complete() const { return is_complete_; }
    std::string_view command_line() const;
    std::string_view loader_name() const;

    u32 module_count() const;
    std::optional<BootModule> module(u32 index) const; // modules whose end lies before their start are not counted

    u32 memory_range_count() const;
    std::optional<MemoryRange> memory_range(u32 index) const; // empty for entries of size 0 or beyond 2^64
    std::optional<BasicMemory> basic_memory() const;
    std::optional<Framebuffer> framebuffer() const; // only if its numbers fit together

    // Copies of the RSDP: 20 bytes of revision 0 (tag 14), 36 or more of revision 2 (tag 15). Not checksummed here.
    std::span<u8 const> rsdp_old() const;
    std::span<u8 const> rsdp_new() const;
    std::span<u8 const> smbios() const; // the entry point structure
    std::optional<u64> efi_system_table64() const;
    bool has_efi_memory_map() const;
    bool has_efi_boot_services() const; // ExitBootServices was not called

    struct Tag {
        u32 type;
        lib::ByteView body; // behind the type and size words
    };
    // Walks the tags: start with cursor 0; empty at the end or at the first broken tag.
    std::optional<Tag> next_tag(u32& cursor) const;
    std::optional<Tag> find(u32 type) const;

private:
    explicit Multiboot2(lib::ByteView bytes) : bytes_(bytes) {}
    lib::ByteView bytes_;
    bool is_complete_ = false;
};

} // namespace boot
