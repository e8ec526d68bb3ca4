// SPDX-License-Identifier: MIT
#include "support/table_history.hpp"

#include <kernel/page_entry.hpp>

namespace {

using lib::u64;

struct Host {
    using Entry = kernel::PageEntry;
    using Walk = support::LongModeWalk<false>;
    static constexpr u64 base = 0xffff'8080'0000'0000;
    static constexpr bool splits_for_code = false;
};
struct Service {
    using Entry = kernel::UserEntry;
    using Walk = support::LongModeWalk<true>;
    static constexpr u64 base = 0x7f00'0000'0000;
    static constexpr bool splits_for_code = false;
};
struct Nested {
    using Entry = kernel::LongModeEntry<kernel::PageUse::Nested, lib::GuestPhys>;
    using Walk = support::LongModeWalk<true>;
    static constexpr u64 base = 0;
    static constexpr bool splits_for_code = false;
};

struct Names {
    template <typename Format> static std::string GetName(int) {
        return std::is_same_v<Format, Host> ? "Host" : std::is_same_v<Format, Service> ? "Service" : "Nested";
    }
};

} // namespace

namespace support {
using LongModeFormats = ::testing::Types<Host, Service, Nested>;
INSTANTIATE_TYPED_TEST_SUITE_P(Formats, TableHistoryTest, LongModeFormats, Names);
} // namespace support
