// SPDX-License-Identifier: MIT
#pragma once
// Why a guest cannot be loaded, in numbers and in words.
#include <expected>
#include <lib/format.hpp>
#include <lib/types.hpp>
#include <loader/entry_state.hpp>

namespace loader {

using lib::u64;
using lib::u8;

enum class LoadErrorCode : u8 {
    UnknownImage,         // needed, found: unused
    KernelCut,            // bytes of the file
    NotLinux,             // needed: HdrS as a number; found: what is in its place
    LinuxTooOld,          // boot protocol versions
    LinuxNotHigh,         // a zImage
    CommandLineTooLong,   // characters
    TooManyRanges,        // entries of the memory map
    BootAreaMissing,      // needed: first address, found: bytes
    KernelDoesNotFit,     // bytes; found: the largest free piece
    KernelAddressNotFree, // needed: the address; found: bytes there
    InitrdDoesNotFit,     // bytes; found: the largest free piece
    MapMismatch,          // the memory map calls something RAM that is none; needed: the address
    BadElf,               // found: the offset of the bad value
    ElfMachine,           // e_machine
    NoPvhEntry,
    EntryOutsideImage, // found: the address
    BadMultiboot,      // found: the offset of the header
    MultibootFeature,  // found: the required flag or tag that is not supported
    ModuleDoesNotFit,  // bytes; found: the largest free piece
    ModuleTextTooLong, // characters of all modules together
    ModulesNotTaken,   // the kernel is not loaded by Multiboot
};

struct LoadError {
    LoadErrorCode code;
    u64 needed = 0;
    u64 found = 0;
};

using LoadResult = std::expected<EntryState, LoadError>;

// One line: what, expected, found, what to do.
void format_load_error(lib::TextSink& sink, LoadError error);

} // namespace loader
