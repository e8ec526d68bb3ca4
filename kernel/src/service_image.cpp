// SPDX-License-Identifier: MIT
#include <algorithm>
#include <kernel/service_image.hpp>
#include <lib/byte_view.hpp>

namespace kernel {
namespace {

namespace service = lib::service;
using Refusal = std::unexpected<std::string_view>;
using lib::ByteView;
using lib::u32;

// [elf] Object files, [elf/x86-64]
constexpr u32 elf_magic = 0x464c'457f;
constexpr u8 class_64 = 2, little_endian = 1;
constexpr lib::u16 type_program = 2, machine_x86_64 = 62;
constexpr u64 header_size = 64, program_header_size = 56;
constexpr u32 most_headers = 32;
constexpr u32 pt_load = 1, flag_execute = 1, flag_write = 2, flag_read = 4;

std::string_view check_header(ByteView file) {
    if (!file.has(0, header_size) || file.get32(0) != elf_magic) return "is no ELF file";
    if (file.get8(4) != class_64 || file.get8(5) != little_endian || file.get16(18) != machine_x86_64)
        return "is no ELF64 file for x86-64";
    if (file.get16(16) != type_program) return "is no program with fixed addresses";
    u32 const count = file.get16(56);
    if (file.get16(54) != program_header_size || count == 0 || count > most_headers ||
        !file.has(file.get64(32), count * program_header_size))
        return "has bad program headers";
    return {};
}

std::string_view read_segment(ByteView file, u64 header, ServiceSegment& segment) {
    u32 const flags = file.get32(header + 4);
    u64 const offset = file.get64(header + 8);
    u64 const file_size = file.get64(header + 32);
    segment.at = file.get64(header + 16);
    segment.size = file.get64(header + 40);
    if (file_size > segment.size || !file.has(offset, file_size)) return "has a segment that is not in the file";
    if (segment.at % lib::page_size != 0 || segment.at < service::image_begin || segment.at >= service::image_end ||
        segment.size > service::image_end - segment.at)
        return "has a segment outside of a service's addresses";
    bool const is_writable = (flags & flag_write) != 0, is_executable = (flags & flag_execute) != 0;
    if ((flags & flag_read) == 0 || (is_writable && is_executable))
        return "has a segment with rights that it cannot have";
    segment.rights = make_rights(is_writable, is_executable);
    segment.bytes = file.part(offset, file_size).bytes();
    return {};
}

std::string_view check_program_header(ServiceSegment const& first) {
    ByteView const bytes(first.bytes);
    if (first.at != service::image_begin || bytes.size() < sizeof(service::ProgramHeader) ||
        bytes.get64(0) != service::program_magic)
        return "was not made for Mullion";
    if (bytes.get32(8) != service::abi_version) return "was made for another version of Mullion";
    return {};
}

} // namespace

std::expected<ServiceImage, std::string_view> ServiceImage::parse(std::span<u8 const> bytes) {
    ByteView const file(bytes);
    if (auto const problem = check_header(file); !problem.empty()) return Refusal(problem);
    ServiceImage image;
    image.entry_ = file.get64(24);
    bool has_entry = false;
    u64 end = 0; // of the segment before
    for (u32 i = 0; i < file.get16(56); i++) {
        u64 const header = file.get64(32) + i * program_header_size;
        if (file.get32(header) != pt_load || file.get64(header + 40) == 0) continue;
        ServiceSegment segment{};
        if (auto const problem = read_segment(file, header, segment); !problem.empty()) return Refusal(problem);
        // Each has pages of its own, because each has rights of its own.
        if (segment.at < end) return Refusal("has segments that are not in the order of their addresses");
        end = lib::align_up(segment.at + segment.size, lib::page_size);
        has_entry = has_entry || (is_executable(segment.rights) && image.entry_ >= segment.at &&
                                  image.entry_ - segment.at < segment.bytes.size());
        if (!image.segments_.push_back(segment)) return Refusal("has too many segments");
    }
    if (image.segments_.is_empty()) return Refusal("has nothing to load");
    if (auto const problem = check_program_header(image.segments_[0]); !problem.empty()) return Refusal(problem);
    if (!has_entry) return Refusal("does not begin in its code");
    return image;
}

} // namespace kernel
