// SPDX-License-Identifier: MIT
#include <loader/load_error.hpp>

namespace loader {
namespace {

using lib::format;

// The largest unit that leaves at least 1, rounded up so that the number is enough.
struct Size {
    u64 number;
    std::string_view unit;
};
Size size_of(u64 bytes) {
    if (bytes >= lib::MiB) return {bytes / lib::MiB + (bytes % lib::MiB != 0 ? 1 : 0), "MiB"};
    if (bytes >= lib::KiB) return {bytes / lib::KiB + (bytes % lib::KiB != 0 ? 1 : 0), "KiB"};
    return {bytes, "bytes"};
}
// What there is, is rounded down.
Size space_of(u64 bytes) {
    if (bytes >= lib::MiB) return {bytes / lib::MiB, "MiB"};
    if (bytes >= lib::KiB) return {bytes / lib::KiB, "KiB"};
    return {bytes, "bytes"};
}

void space(lib::TextSink& sink, std::string_view what, LoadError error) {
    Size const needed = size_of(error.needed);
    Size const found = space_of(error.found);
    format(sink, "{}: needs {} {} in one piece, guest memory has {} {} free: raise memory =", what, needed.number,
           needed.unit, found.number, found.unit);
}

void format_elf(lib::TextSink& sink, LoadError error) {
    if (error.code == LoadErrorCode::ElfMachine)
        format(sink, "kernel: expected an ELF file for x86 (3 or 62), found machine {}: build it for x86", error.found);
    else if (error.code == LoadErrorCode::NoPvhEntry)
        format(sink,
               "kernel: expected a Xen ELF note 18 (PHYS32_ENTRY), found none: enable CONFIG_PVH in the kernel or "
               "choose another boot =");
    else if (error.code == LoadErrorCode::EntryOutsideImage)
        format(sink, "kernel: expected the entry point inside of what is loaded, found {:#x}: check how it is linked",
               error.found);
    else
        format(sink,
               "kernel: expected a sound ELF file, found a bad value at offset {:#x}: check that the file is whole",
               error.found);
}

void format_linux(lib::TextSink& sink, LoadError error) {
    if (error.code == LoadErrorCode::NotLinux)
        format(sink,
               "kernel: expected a Linux bzImage (HdrS at 0x202), found {:#010x} there: check kernel = and boot =",
               error.found);
    else if (error.code == LoadErrorCode::LinuxTooOld)
        format(sink, "kernel: expected Linux boot protocol {}.{:02} or later, found {}.{:02}: use a newer kernel",
               error.needed >> 8, error.needed & 0xff, error.found >> 8, error.found & 0xff);
    else
        format(sink, "kernel: expected a kernel that loads above 1 MiB, found a zImage: build a bzImage");
}

} // namespace

void format_load_error(lib::TextSink& sink, LoadError error) {
    switch (error.code) {
    case LoadErrorCode::UnknownImage:
        format(sink,
               "kernel: expected a bzImage, an ELF file or a Multiboot header, found none of them: check kernel =");
        break;
    case LoadErrorCode::KernelCut:
        format(sink, "kernel: expected at least {} bytes, found {}: the file is cut, copy it again", error.needed,
               error.found);
        break;
    case LoadErrorCode::NotLinux:
    case LoadErrorCode::LinuxTooOld:
    case LoadErrorCode::LinuxNotHigh: format_linux(sink, error); break;
    case LoadErrorCode::CommandLineTooLong:
        format(sink, "cmdline: expected at most {} characters, found {}: shorten cmdline =", error.needed, error.found);
        break;
    case LoadErrorCode::TooManyRanges:
        format(sink, "memory map: expected at most {} ranges, found {}: report this as a bug", error.needed,
               error.found);
        break;
    case LoadErrorCode::BootAreaMissing:
        format(sink, "memory: expected {} KiB of RAM at {:#x}, found less: report this as a bug",
               error.found / lib::KiB, error.needed);
        break;
    case LoadErrorCode::KernelDoesNotFit: space(sink, "kernel", error); break;
    case LoadErrorCode::KernelAddressNotFree:
        format(sink, "kernel: must be loaded at {:#x} ({} KiB), found no free RAM there: raise memory = or relink it",
               error.needed, error.found / lib::KiB + 1);
        break;
    case LoadErrorCode::InitrdDoesNotFit: space(sink, "initrd", error); break;
    case LoadErrorCode::ModuleDoesNotFit: space(sink, "modules", error); break;
    case LoadErrorCode::ModuleTextTooLong:
        format(sink,
               "modules: expected at most {} characters of command lines, found {}: shorten modules =", error.needed,
               error.found);
        break;
    case LoadErrorCode::ModulesNotTaken:
        format(sink, "modules: expected a Multiboot kernel, found another: remove modules = or choose another boot =");
        break;
    case LoadErrorCode::MapMismatch:
        format(sink, "memory map: expected RAM at {:#x}, found none: report this as a bug", error.needed);
        break;
    case LoadErrorCode::BadElf:
    case LoadErrorCode::ElfMachine:
    case LoadErrorCode::NoPvhEntry:
    case LoadErrorCode::EntryOutsideImage: format_elf(sink, error); break;
    case LoadErrorCode::BadMultiboot:
        format(sink, "kernel: expected a sound Multiboot header, found a bad one at offset {:#x}: check the file",
               error.found);
        break;
    case LoadErrorCode::MultibootFeature:
        format(sink, "kernel: its Multiboot header requires feature {:#x}, which is not supported: relink it without",
               error.found);
        break;
    }
}

} // namespace loader
