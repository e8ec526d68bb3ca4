// SPDX-License-Identifier: MIT
#include "byte_reader.hpp"
#include <algorithm>
#include <loader/boot_area.hpp>
#include <loader/elf.hpp>

namespace loader {
namespace {

constexpr u32 pt_load = 1;
constexpr u32 pt_note = 4;
constexpr u32 machine_386 = 3;
constexpr u32 machine_x86_64 = 62;
constexpr u32 most_headers = 128;
constexpr u32 note_phys32_entry = 18;
constexpr u32 name_xen = 0x006e6558; // "Xen\0"

std::unexpected<LoadError> bad(u64 offset) { return std::unexpected(LoadError{LoadErrorCode::BadElf, 0, offset}); }

} // namespace

bool is_elf(std::span<u8 const> file) { return ByteReader(file).get<u32>(0) == 0x464c457f; }

std::expected<ElfImage, LoadError> ElfImage::parse(std::span<u8 const> file) {
    ByteReader const reader(file);
    if (!is_elf(file)) return bad(0);
    u8 const file_class = reader.get<u8>(4);
    if (file_class != 1 && file_class != 2) return bad(4);
    if (reader.get<u8>(5) != 1) return bad(5); // little-endian
    ElfImage image;
    image.file_ = file;
    image.is_64_ = file_class == 2;
    u64 const header_size = image.is_64_ ? 64 : 52;
    if (reader.size() < header_size)
        return std::unexpected(LoadError{LoadErrorCode::KernelCut, header_size, reader.size()});
    u32 const machine = reader.get<lib::u16>(18);
    if (machine != machine_386 && machine != machine_x86_64)
        return std::unexpected(LoadError{LoadErrorCode::ElfMachine, machine_x86_64, machine});
    image.entry_ = image.is_64_ ? reader.get<u64>(24) : reader.get<u32>(24);
    image.headers_ = image.is_64_ ? reader.get<u64>(32) : reader.get<u32>(28);
    image.header_size_ = reader.get<lib::u16>(image.is_64_ ? 54 : 42);
    image.header_count_ = reader.get<lib::u16>(image.is_64_ ? 56 : 44);
    if (image.header_size_ < (image.is_64_ ? 56U : 32U)) return bad(image.is_64_ ? 54 : 42);
    if (image.header_count_ == 0 || image.header_count_ > most_headers) return bad(image.is_64_ ? 56 : 44);
    if (!reader.has(image.headers_, u64{image.header_size_} * image.header_count_)) return bad(image.is_64_ ? 32 : 28);
    return image;
}

std::optional<LoadSegment> ElfImage::segment(u32 index, u32 type) const {
    ByteReader const reader(file_);
    u64 const at = header_at(index);
    if (reader.get<u32>(at) != type) return std::nullopt;
    if (is_64_)
        return LoadSegment{.offset = reader.get<u64>(at + 8),
                           .file_size = reader.get<u64>(at + 32),
                           .memory_size = reader.get<u64>(at + 40),
                           .physical = reader.get<u64>(at + 24),
                           .virtual_address = reader.get<u64>(at + 16)};
    return LoadSegment{.offset = reader.get<u32>(at + 4),
                       .file_size = reader.get<u32>(at + 16),
                       .memory_size = reader.get<u32>(at + 20),
                       .physical = reader.get<u32>(at + 12),
                       .virtual_address = reader.get<u32>(at + 8)};
}

std::optional<u64> ElfImage::physical_entry() const {
    for (u32 i = 0; i < header_count_; ++i) {
        auto const found = segment(i, pt_load);
        if (found && entry_ >= found->virtual_address && entry_ - found->virtual_address < found->memory_size)
            return found->physical + (entry_ - found->virtual_address);
    }
    // Kernels that turn paging on themselves (xv6) name the physical address.
    for (u32 i = 0; i < header_count_; ++i) {
        auto const found = segment(i, pt_load);
        if (found && entry_ >= found->physical && entry_ - found->physical < found->memory_size) return entry_;
    }
    return std::nullopt;
}

std::optional<u64> ElfImage::pvh_entry() const {
    for (u32 i = 0; i < header_count_; ++i)
        if (auto const notes = segment(i, pt_note))
            if (auto const entry = pvh_entry_of(*notes)) return entry;
    return std::nullopt;
}

std::optional<u64> ElfImage::pvh_entry_of(LoadSegment const& notes) const {
    ByteReader const reader(ByteReader(file_).slice(notes.offset, notes.file_size));
    constexpr u64 note_header = 12;
    for (u64 at = 0; reader.has(at, note_header);) {
        u64 const name_size = reader.get<u32>(at);
        u64 const value_size = reader.get<u32>(at + 4);
        u32 const type = reader.get<u32>(at + 8);
        u64 const name_at = at + note_header;
        u64 const value_at = name_at + lib::align_up(name_size, 4);
        if (type == note_phys32_entry && name_size == 4 && reader.get<u32>(name_at) == name_xen &&
            reader.has(value_at, value_size)) {
            if (value_size == 4) return reader.get<u32>(value_at);
            if (value_size == 8) return reader.get<u64>(value_at);
        }
        at = value_at + lib::align_up(value_size, 4);
    }
    return std::nullopt;
}

// `segment`, number `index`, is in RAM, and so are those before it: their ends do not overflow.
bool ElfImage::overlaps_earlier(u32 index, LoadSegment const& segment) const {
    MemoryRange const range{segment.physical, segment.physical + segment.memory_size};
    for (u32 i = 0; i < index; ++i) {
        auto const other = this->segment(i, pt_load);
        if (other && range.overlaps({other->physical, other->physical + other->memory_size})) return true;
    }
    return false;
}

std::expected<MemoryRange, LoadError> ElfImage::load(BootInput const& input, lib::GuestMemory const& memory) const {
    MemoryRange all{~u64{0}, 0};
    for (u32 i = 0; i < header_count_; ++i) {
        auto const found = segment(i, pt_load);
        if (!found || found->memory_size == 0) continue;
        if (found->file_size > found->memory_size || !ByteReader(file_).has(found->offset, found->file_size))
            return bad(header_at(i));
        if (!is_ram(input.memory_map, found->physical, found->memory_size))
            return std::unexpected(LoadError{LoadErrorCode::KernelAddressNotFree, found->physical, found->memory_size});
        if (overlaps_earlier(i, *found)) return bad(header_at(i));
        auto const range = load_segment(input, memory, *found);
        if (!range) return range;
        all.begin = std::min(all.begin, range->begin);
        all.end = std::max(all.end, range->end);
    }
    if (all.begin >= all.end) return bad(headers_);
    return all;
}

std::expected<MemoryRange, LoadError> load_segment(BootInput const& input, lib::GuestMemory const& memory,
                                                   LoadSegment const& segment) {
    u64 const at = segment.physical;
    u64 const size = segment.memory_size;
    if (!is_ram(input.memory_map, at, size) || MemoryRange{at, at + size}.overlaps(boot_area))
        return std::unexpected(LoadError{LoadErrorCode::KernelAddressNotFree, at, size});
    MemoryRange const range{at, at + size};
    if (!memory.contains(GuestPhys{at}, size)) return std::unexpected(LoadError{LoadErrorCode::MapMismatch, at, 0});
    auto const bytes = input.kernel.subspan(segment.offset, segment.file_size);
    bool const is_zero_already = input.is_memory_zero && at >= lib::MiB;
    u64 const zeroes = is_zero_already ? 0 : size - segment.file_size;
    if (input.copies != nullptr && input.copies->add(GuestPhys{at}, bytes, zeroes)) return range;
    if (auto const done = copy_in(memory, at, bytes); !done) return std::unexpected(done.error());
    if (!memory.fill(GuestPhys{at + segment.file_size}, zeroes, 0))
        return std::unexpected(LoadError{LoadErrorCode::MapMismatch, at, 0});
    return range;
}

} // namespace loader
