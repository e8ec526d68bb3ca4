#include "byte_reader.hpp"
#include <loader/elf.hpp>
#include <loader/image.hpp>
#include <loader/linux_loader.hpp>
#include <loader/multiboot_loader.hpp>
#include <loader/pvh_loader.hpp>

namespace loader {

ImageKind detect_image(std::span<u8 const> kernel) {
    ByteReader const reader(kernel);
    if (reader.get<u32>(0x202) == 0x53726448 && reader.get<u16>(0x1fe) == 0xaa55) return ImageKind::BzImage;
    auto const elf = ElfImage::parse(kernel);
    if (elf && elf->pvh_entry()) return ImageKind::ElfPvh;
    if (find_multiboot2_header(kernel)) return ImageKind::Multiboot2;
    if (find_multiboot1_header(kernel)) return ImageKind::Multiboot1;
    return is_elf(kernel) ? ImageKind::ElfPlain : ImageKind::Unknown;
}

namespace {

// A kernel may have both headers. Whether this one asks for something that cannot be given is known before anything of
// it is in memory.
bool may_have_another_header(LoadResult const& result) {
    return !result && (result.error().code == LoadErrorCode::MultibootFeature ||
                       result.error().code == LoadErrorCode::BadMultiboot);
}

LoadResult load_multiboot(BootInput const& input, lib::GuestMemory const& memory) {
    LoadResult const second = load_multiboot2(input, memory);
    if (!may_have_another_header(second) || !find_multiboot1_header(input.kernel)) return second;
    LoadResult const first = load_multiboot1(input, memory);
    return first ? first : second;
}

} // namespace

LoadResult load_guest(lib::BootKind boot, BootInput const& input, lib::GuestMemory const& memory) {
    switch (boot) {
    case lib::BootKind::Linux: return load_linux(input, memory);
    case lib::BootKind::Pvh: return load_pvh(input, memory);
    case lib::BootKind::Elf: return load_elf(input, memory);
    case lib::BootKind::Multiboot1: return load_multiboot1(input, memory);
    case lib::BootKind::Multiboot2: return load_multiboot2(input, memory);
    case lib::BootKind::Auto: break;
    }
    switch (detect_image(input.kernel)) {
    case ImageKind::BzImage: return load_linux(input, memory);
    case ImageKind::ElfPvh: return load_pvh(input, memory);
    case ImageKind::Multiboot2: return load_multiboot(input, memory);
    case ImageKind::Multiboot1: return load_multiboot1(input, memory);
    case ImageKind::ElfPlain: return load_elf(input, memory);
    case ImageKind::Unknown: break;
    }
    return std::unexpected(LoadError{LoadErrorCode::UnknownImage, 0, 0});
}

} // namespace loader
