// SPDX-License-Identifier: MIT
#include <boot/multiboot2.hpp>

namespace boot {
namespace {

// [multiboot2] 3.6.2 to 3.6.19
enum TagType : u32 {
    End = 0,
    CommandLine = 1,
    LoaderName = 2,
    Module = 3,
    BasicMeminfo = 4,
    MemoryMap = 6,
    FramebufferInfo = 8,
    Efi64SystemTable = 12,
    Smbios = 13,
    AcpiOldRsdp = 14,
    AcpiNewRsdp = 15,
    EfiMemoryMap = 17,
    EfiBootServices = 18,
};
constexpr u32 fixed_part = 8;        // total_size, reserved
constexpr u32 tag_header = 8;        // type, size
constexpr u32 memory_map_header = 8; // entry_size, entry_version

std::optional<BootModule> module_of(Multiboot2::Tag const& tag) {
    if (tag.type != Module || !tag.body.has(0, 8)) return std::nullopt;
    BootModule const found{{tag.body.get32(0)}, {tag.body.get32(4)}, tag.body.text(8)};
    if (found.end < found.start) return std::nullopt;
    return found;
}

bool is_field_inside(Framebuffer::Field field, u8 bits) { return field.position + field.width <= bits; }

} // namespace

lib::Result<u32> Multiboot2::total_size(std::span<u8 const> header) {
    lib::ByteView const view(header);
    u32 const size = view.get32(0);
    if (!view.has(0, fixed_part) || size < fixed_part + tag_header || size > max_size)
        return lib::fail(lib::Errc::BadFormat);
    return size;
}

lib::Result<Multiboot2> Multiboot2::parse(std::span<u8 const> bytes) {
    u32 const size = TRY(total_size(bytes));
    Multiboot2 info(lib::ByteView(bytes).part(0, size));
    u32 cursor = 0;
    while (auto const tag = info.next_tag(cursor)) {
        // Only reached for whole tags, so the end tag proves the list before it.
    }
    lib::ByteView const end = info.bytes_.part(fixed_part + cursor, tag_header);
    info.is_complete_ = end.size() == tag_header && end.get32(0) == End && end.get32(4) == tag_header;
    return info;
}

std::optional<Multiboot2::Tag> Multiboot2::next_tag(u32& cursor) const {
    u64 const at = u64{fixed_part} + cursor;
    if (!bytes_.has(at, tag_header)) return std::nullopt;
    u32 const type = bytes_.get32(at);
    u32 const size = bytes_.get32(at + 4);
    if (type == End || size < tag_header || !bytes_.has(at, size)) return std::nullopt;
    cursor += static_cast<u32>(lib::align_up(size, 8));
    return Tag{type, bytes_.part(at + tag_header, size - tag_header)};
}

std::optional<Multiboot2::Tag> Multiboot2::find(u32 type) const {
    u32 cursor = 0;
    while (auto const tag = next_tag(cursor))
        if (tag->type == type) return tag;
    return std::nullopt;
}

std::string_view Multiboot2::command_line() const {
    auto const tag = find(CommandLine);
    return tag ? tag->body.text(0) : std::string_view();
}

std::string_view Multiboot2::loader_name() const {
    auto const tag = find(LoaderName);
    return tag ? tag->body.text(0) : std::string_view();
}

u32 Multiboot2::module_count() const {
    u32 count = 0;
    u32 cursor = 0;
    while (auto const tag = next_tag(cursor))
        count += module_of(*tag) ? 1 : 0;
    return count;
}

std::optional<BootModule> Multiboot2::module(u32 index) const {
    u32 cursor = 0;
    while (auto const tag = next_tag(cursor)) {
        auto const found = module_of(*tag);
        if (found && index-- == 0) return found;
    }
    return std::nullopt;
}

u32 Multiboot2::memory_range_count() const {
    auto const tag = find(MemoryMap);
    if (!tag || tag->body.size() < memory_map_header) return 0;
    u32 const entry_size = tag->body.get32(0);
    if (entry_size < 20) return 0; // base, size and type do not fit
    return static_cast<u32>((tag->body.size() - memory_map_header) / entry_size);
}

std::optional<MemoryRange> Multiboot2::memory_range(u32 index) const {
    if (index >= memory_range_count()) return std::nullopt;
    auto const tag = find(MemoryMap);
    if (!tag) return std::nullopt;
    u64 const at = memory_map_header + u64{index} * tag->body.get32(0);
    MemoryRange const range{
        {tag->body.get64(at)}, tag->body.get64(at + 8), static_cast<MemoryType>(tag->body.get32(at + 16))};
    if (range.size == 0 || range.base.value + range.size < range.base.value) return std::nullopt;
    return range;
}

std::optional<BasicMemory> Multiboot2::basic_memory() const {
    auto const tag = find(BasicMeminfo);
    if (!tag || tag->body.size() < 8) return std::nullopt;
    return BasicMemory{tag->body.get32(0), tag->body.get32(4)};
}

std::optional<Framebuffer> Multiboot2::framebuffer() const {
    auto const tag = find(FramebufferInfo);
    if (!tag || tag->body.size() < 22) return std::nullopt;
    lib::ByteView const body = tag->body;
    u8 const kind = body.get8(21);
    if (kind > static_cast<u8>(Framebuffer::Kind::Text)) return std::nullopt;
    // The colour information follows two reserved bytes: the structure that loaders fill is aligned to 8.
    // [multiboot2] 3.6.12
    auto const field = [&](u64 at) { return Framebuffer::Field{body.get8(at), body.get8(at + 1)}; };
    bool const is_rgb = kind == static_cast<u8>(Framebuffer::Kind::Rgb);
    Framebuffer const found{
        .address = {body.get64(0)},
        .pitch = body.get32(8),
        .width = body.get32(12),
        .height = body.get32(16),
        .bits_per_pixel = body.get8(20),
        .kind = static_cast<Framebuffer::Kind>(kind),
        .red = is_rgb ? field(24) : Framebuffer::Field{},
        .green = is_rgb ? field(26) : Framebuffer::Field{},
        .blue = is_rgb ? field(28) : Framebuffer::Field{},
    };
    if (is_rgb && !body.has(24, 6)) return std::nullopt;
    u64 const line_bits =
        u64{found.width} * (kind == static_cast<u8>(Framebuffer::Kind::Text) ? 16 : found.bits_per_pixel);
    if (found.width == 0 || found.height == 0 || line_bits > u64{found.pitch} * 8) return std::nullopt;
    for (auto const component : {found.red, found.green, found.blue})
        if (!is_field_inside(component, found.bits_per_pixel)) return std::nullopt;
    // The last byte must have an address.
    if (found.address.value > ~u64{0} - u64{found.pitch} * found.height) return std::nullopt;
    return found;
}

std::span<u8 const> Multiboot2::rsdp_old() const {
    auto const tag = find(AcpiOldRsdp);
    return tag ? tag->body.bytes() : std::span<u8 const>();
}

std::span<u8 const> Multiboot2::rsdp_new() const {
    auto const tag = find(AcpiNewRsdp);
    return tag ? tag->body.bytes() : std::span<u8 const>();
}

std::span<u8 const> Multiboot2::smbios() const {
    auto const tag = find(Smbios); // major, minor and six reserved bytes come first
    return tag ? tag->body.from(8).bytes() : std::span<u8 const>();
}

std::optional<u64> Multiboot2::efi_system_table64() const {
    auto const tag = find(Efi64SystemTable);
    if (!tag || tag->body.size() < 8) return std::nullopt;
    return tag->body.get64(0);
}

bool Multiboot2::has_efi_memory_map() const { return find(EfiMemoryMap).has_value(); }
bool Multiboot2::has_efi_boot_services() const { return find(EfiBootServices).has_value(); }

} // namespace boot
