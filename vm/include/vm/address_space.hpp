// SPDX-License-Identifier: MIT
#pragma once
// What the backend of a VM offers to map guest-physical space.
#include <kernel/translation_table.hpp>
#include <lib/result.hpp>
#include <lib/types.hpp>

namespace vm {

using GuestMapping = kernel::Mapping<lib::GuestPhys>;

class AddressSpace {
public:
    virtual ~AddressSpace() = default;
    // Ranges are page-aligned. Larger pages are used where both addresses allow. What was mapped there is replaced on
    // every CPU before it returns. The caller holds no lock: it waits for other CPUs.
    virtual lib::Result<void> map(GuestMapping const& mapping) = 0;
    // Takes effect on every CPU before it returns. The caller holds no lock.
    virtual lib::Result<void> unmap(lib::GuestPhys at, lib::u64 size) = 0;
    virtual lib::u64 table_bytes() const = 0;
};

} // namespace vm
