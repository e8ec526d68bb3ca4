// SPDX-License-Identifier: MIT
#include "multiboot_common.hpp"
#include <algorithm>
#include <loader/multiboot_loader.hpp>

namespace loader {
namespace {

// [multiboot2] 3.1
constexpr u32 header_magic = 0xe85250d6;
constexpr u32 loaded_magic = 0x36d76289;
constexpr u64 search_limit = 32768;
constexpr u32 architecture_i386 = 0;
constexpr u32 tag_optional = 1;
enum HeaderTag : u32 {
    HeaderEnd = 0,
    InformationRequest = 1, // what is asked for and cannot be given is left out
    Addresses = 2,
    EntryAddress = 3,
    ConsoleFlags = 4,
    Framebuffer = 5, // asked for, also when it is called required; like a loader without a screen, none is given
    ModuleAlignment = 6,
    EfiBootServices = 7, // about EFI firmware, which is not there
    EfiEntry32 = 8,
    EfiEntry64 = 9,
    Relocatable = 10, // may be moved, need not be
};

// [multiboot2] 3.6
enum InformationTag : u32 {
    End = 0,
    CommandLine = 1,
    LoaderName = 2,
    Module = 3,
    BasicMemoryInfo = 4,
    MemoryMap = 6,
    OldRsdp = 14,
    NewRsdp = 15,
};

// The information has the whole area of the command line, which is a part of it.
constexpr u64 most_characters = boot_command_line_size / 2;
constexpr u64 most_ranges = 128;

struct HeaderContents {
    std::optional<MultibootAddresses> addresses;
    std::optional<u32> entry;
};

std::expected<HeaderContents, LoadError> read_header(std::span<u8 const> kernel, u64 header) {
    ByteReader const reader(kernel);
    HeaderContents contents;
    u64 const end = header + reader.get<u32>(header + 8);
    for (u64 at = header + 16; at + 8 <= end && reader.has(at, 8);) {
        u32 const type = reader.get<lib::u16>(at);
        bool const optional = (reader.get<lib::u16>(at + 2) & tag_optional) != 0;
        u32 const size = reader.get<u32>(at + 4);
        if (size < 8 || size > end - at || !reader.has(at, size)) break;
        switch (type) {
        case HeaderEnd: return contents;
        case Addresses:
            if (size < 24) return std::unexpected(LoadError{LoadErrorCode::BadMultiboot, 0, at});
            contents.addresses = MultibootAddresses{.header_offset = header,
                                                    .header = reader.get<u32>(at + 8),
                                                    .load = reader.get<u32>(at + 12),
                                                    .load_end = reader.get<u32>(at + 16),
                                                    .bss_end = reader.get<u32>(at + 20)};
            break;
        case EntryAddress:
            if (size < 12) return std::unexpected(LoadError{LoadErrorCode::BadMultiboot, 0, at});
            contents.entry = reader.get<u32>(at + 8);
            break;
        case InformationRequest:
        case ConsoleFlags:
        case Framebuffer:
        case ModuleAlignment:
        case EfiBootServices:
        case EfiEntry32:
        case EfiEntry64:
        case Relocatable: break;
        default:
            if (!optional) return std::unexpected(LoadError{LoadErrorCode::MultibootFeature, 0, type});
        }
        at += lib::align_up(size, 8);
    }
    return std::unexpected(LoadError{LoadErrorCode::BadMultiboot, 0, header}); // no end tag
}

std::expected<MultibootKernel, LoadError> load_kernel(BootInput const& input, lib::GuestMemory const& memory,
                                                      HeaderContents const& header) {
    if (header.addresses) {
        if (!header.entry)
            return std::unexpected(LoadError{LoadErrorCode::BadMultiboot, 0, header.addresses->header_offset});
        auto const range = load_by_addresses(input, memory, *header.addresses);
        if (!range) return std::unexpected(range.error());
        return MultibootKernel{*range, *header.entry};
    }
    auto kernel = load_by_elf(input, memory);
    if (kernel && header.entry) kernel->entry = *header.entry;
    return kernel;
}

// Appends tags to the information, each 8-byte aligned; remembers the first failure.
class InformationWriter {
public:
    explicit InformationWriter(lib::GuestMemory const& memory) : memory_(memory) {}
    void open(u32 type) {
        tag_ = at_;
        put(type);
        put(u32{0});
    }
    template <typename T> void put(T value) {
        ok_ = memory_.write(boot_command_line + at_, value).has_value() && ok_;
        at_ += sizeof(T);
    }
    void put_bytes(std::span<u8 const> bytes) {
        ok_ = memory_.write(boot_command_line + at_, bytes).has_value() && ok_;
        at_ += bytes.size();
    }
    void put_text(std::string_view text) {
        put_bytes({reinterpret_cast<u8 const*>(text.data()), text.size()});
        put(u8{0});
    }
    void close() {
        ok_ = memory_.write(boot_command_line + tag_ + 4, static_cast<u32>(at_ - tag_)).has_value() && ok_;
        at_ = lib::align_up(at_, 8);
    }
    // The total size.
    BootStep finish() {
        open(End);
        close();
        ok_ = memory_.write(boot_command_line, static_cast<u32>(at_)).has_value() && ok_;
        if (!ok_) return std::unexpected(LoadError{LoadErrorCode::MapMismatch, boot_command_line.value, 0});
        return {};
    }

private:
    lib::GuestMemory const& memory_;
    u64 at_ = 8; // behind the total size and a reserved number
    u64 tag_ = 0;
    bool ok_ = true;
};

// A copy of the root pointer, as the tag wants it. [acpi] 5.2.5.3
void write_rsdp(BootInput const& input, lib::GuestMemory const& memory, InformationWriter& out) {
    if (input.rsdp.value == 0) return;
    std::array<u8, 36> rsdp{};
    std::span<u8> const first(rsdp.data(), 20);
    if (!memory.read(input.rsdp, first)) return;
    bool const is_new = rsdp[15] >= 2;
    if (is_new && !memory.read(input.rsdp, std::span<u8>(rsdp))) return;
    out.open(is_new ? NewRsdp : OldRsdp);
    out.put_bytes(is_new ? std::span<u8 const>(rsdp) : std::span<u8 const>(first));
    out.close();
}

BootStep write_information(BootInput const& input, lib::GuestMemory const& memory, PlacedModules const& modules) {
    if (input.command_line.size() > most_characters)
        return std::unexpected(
            LoadError{LoadErrorCode::CommandLineTooLong, most_characters, input.command_line.size()});
    if (input.memory_map.size() > most_ranges)
        return std::unexpected(LoadError{LoadErrorCode::TooManyRanges, most_ranges, input.memory_map.size()});
    InformationWriter out(memory);
    out.open(CommandLine);
    out.put_text(input.command_line);
    out.close();
    out.open(LoaderName);
    out.put_text(boot_loader_name);
    out.close();
    for (PlacedModule const& module : modules) {
        out.open(Module);
        out.put(static_cast<u32>(module.range.begin));
        out.put(static_cast<u32>(module.range.end));
        out.put_text(module.text);
        out.close();
    }
    BasicMemory const basic = basic_memory(input.memory_map);
    out.open(BasicMemoryInfo);
    out.put(basic.lower);
    out.put(basic.upper);
    out.close();
    out.open(MemoryMap);
    out.put(u32{24}); // entry size
    out.put(u32{0});  // entry version
    for (E820Entry const& entry : input.memory_map) {
        out.put(entry.base);
        out.put(entry.size);
        out.put(entry.type);
        out.put(u32{0});
    }
    out.close();
    write_rsdp(input, memory, out);
    return out.finish();
}

} // namespace

std::optional<u64> find_multiboot2_header(std::span<u8 const> kernel) {
    ByteReader const reader(kernel);
    for (u64 at = 0; at + 16 <= search_limit && reader.has(at, 16); at += 8)
        if (reader.get<u32>(at) == header_magic && reader.get<u32>(at + 4) == architecture_i386 &&
            header_magic + reader.get<u32>(at + 4) + reader.get<u32>(at + 8) + reader.get<u32>(at + 12) == 0)
            return at;
    return std::nullopt;
}

LoadResult load_multiboot2(BootInput const& input, lib::GuestMemory const& memory) {
    auto const at = find_multiboot2_header(input.kernel);
    if (!at) return std::unexpected(LoadError{LoadErrorCode::UnknownImage, 0, 0});
    auto const header = read_header(input.kernel, *at);
    if (!header) return std::unexpected(header.error());
    if (auto const done = prepare_boot_area(input, memory); !done) return std::unexpected(done.error());
    auto const kernel = load_kernel(input, memory, *header);
    if (!kernel) return std::unexpected(kernel.error());
    if (kernel->entry < kernel->range.begin || kernel->entry >= kernel->range.end || kernel->range.end > 4 * lib::GiB)
        return std::unexpected(LoadError{LoadErrorCode::EntryOutsideImage, 0, kernel->entry});
    auto const modules = place_modules(input, memory, kernel->range);
    if (!modules) return std::unexpected(modules.error());
    if (auto const done = write_information(input, memory, *modules); !done) return std::unexpected(done.error());
    auto state = make_entry_state(memory, EntryMode::Protected32);
    if (!state) return state;
    state->rip = kernel->entry;
    state->rax = loaded_magic;
    state->rbx = boot_command_line.value;
    return state;
}

} // namespace loader
