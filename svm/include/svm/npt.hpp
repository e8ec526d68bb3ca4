// SPDX-License-Identifier: MIT
#pragma once
// Nested page tables: ordinary long-mode entries, walked as user accesses. [amd/vol2] 15.25.5, 5.3
#include <kernel/page_entry.hpp>

namespace svm {

using NptEntry = kernel::LongModeEntry<kernel::PageUse::Nested, lib::GuestPhys>;
using NptTable = kernel::TranslationTable<NptEntry>;

} // namespace svm
