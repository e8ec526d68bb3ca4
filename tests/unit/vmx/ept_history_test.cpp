// SPDX-License-Identifier: MIT
#include "support/table_history.hpp"

#include <vmx/ept.hpp>

namespace {

struct Ept {
    using Entry = vmx::EptEntry;
    using Walk = support::EptWalk;
    static constexpr lib::u64 base = 0;
    static constexpr bool splits_for_code = false;
};
// On a CPU with the iTLB multihit erratum.
struct SmallCodePages : Ept {
    static constexpr bool splits_for_code = true;
};

struct Names {
    template <typename Format> static std::string GetName(int) {
        return Format::splits_for_code ? "SmallCodePages" : "Ept";
    }
};

} // namespace

namespace support {
using EptFormats = ::testing::Types<Ept, SmallCodePages>;
INSTANTIATE_TYPED_TEST_SUITE_P(Formats, TableHistoryTest, EptFormats, Names);
} // namespace support
