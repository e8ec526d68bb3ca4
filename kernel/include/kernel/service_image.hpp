// SPDX-License-Identifier: MIT
#pragma once
// The file of a service: an ELF64 program, linked at a fixed address. Everything in it is checked before a byte is
// used, whoever has made it: its bytes may come from a boot module. Not supported: relocation, shared objects,
// thread-local storage.
#include <expected>
#include <kernel/translation_table.hpp>
#include <lib/fixed_vector.hpp>
#include <lib/service_abi.hpp>
#include <lib/types.hpp>
#include <span>
#include <string_view>

namespace kernel {

struct ServiceSegment {
    u64 at;   // page-aligned
    u64 size; // bytes in memory, of which those behind `bytes` are zero
    std::span<u8 const> bytes;
    Rights rights;
};

class ServiceImage {
public:
    static constexpr lib::u32 most_segments = 8;
    // The error is a sentence without its subject, for the log.
    static std::expected<ServiceImage, std::string_view> parse(std::span<u8 const> file);

    u64 entry() const { return entry_; }
    std::span<ServiceSegment const> segments() const { return segments_.span(); }

private:
    lib::FixedVector<ServiceSegment, most_segments> segments_;
    u64 entry_ = 0;
};

} // namespace kernel
