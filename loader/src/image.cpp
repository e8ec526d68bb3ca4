// SPDX-License-Identifier: MIT
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

ImageKind kind_of(lib::BootKind boot) {
    if (boot == lib::BootKind::Linux) return ImageKind::BzImage;
    return boot == lib::BootKind::Pvh ? ImageKind::ElfPvh : ImageKind::ElfPlain;
}

LoadResult load_multiboot(BootInput const& input, lib::GuestMemory const& memory) {
    LoadResult const second = load_multiboot2(input, memory);
    if (!may_have_another_header(second) || !find_multiboot1_header(input.kernel)) return second;
    LoadResult const first = load_multiboot1(input, memory);
    return first ? first : second;
}

} // namespace

LoadResult load_guest(lib::BootKind boot, BootInput const& input, lib::GuestMemory const& memory) {
    if (boot == lib::BootKind::Multiboot1) return load_multiboot1(input, memory);
    if (boot == lib::BootKind::Multiboot2) return load_multiboot2(input, memory);
    ImageKind kind = boot == lib::BootKind::Auto ? detect_image(input.kernel) : kind_of(boot);
    // Xen has a PVH entry as well, which would not be given the modules.
    if (boot == lib::BootKind::Auto && !input.modules.empty() && find_multiboot2_header(input.kernel))
        kind = ImageKind::Multiboot2;
    else if (boot == lib::BootKind::Auto && !input.modules.empty() && find_multiboot1_header(input.kernel))
        kind = ImageKind::Multiboot1;
    if (kind == ImageKind::Multiboot2) return load_multiboot(input, memory);
    if (kind == ImageKind::Multiboot1) return load_multiboot1(input, memory);
    if (kind == ImageKind::Unknown) return std::unexpected(LoadError{LoadErrorCode::UnknownImage, 0, 0});
    if (!input.modules.empty()) return std::unexpected(LoadError{LoadErrorCode::ModulesNotTaken, 0, 0});
    if (kind == ImageKind::BzImage) return load_linux(input, memory);
    return kind == ImageKind::ElfPvh ? load_pvh(input, memory) : load_elf(input, memory);
}

} // namespace loader
