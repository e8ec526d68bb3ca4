// SPDX-License-Identifier: MIT
#pragma once
// Pages that a vCPU's code was in last: what its page tables said on the way there, and where they are for us. The
// translation is used only while every entry on the way still holds the same value, so it is never staler than a walk
// would be; it only saves the walk's arithmetic and bounds checks. 4-level paging alone is remembered.
#include <array>
#include <lib/types.hpp>

namespace vm {

class CodeWindow {
public:
    static constexpr unsigned levels = 4;

    CodeWindow() { forget(); }
    CodeWindow(CodeWindow const&) = delete;
    CodeWindow& operator=(CodeWindow const&) = delete;

    // Whether it is known where the byte at `linear` is, and there it is; if not, walk. What follows it in its 4 KiB
    // page follows here too.
    bool find(lib::u64 cr3, lib::u64 linear, lib::u8 const*& at) const {
        if (cr3 != cr3_ || ((linear ^ linear_) >> 12) != 0) return false;
        for (unsigned i = 0; i < levels; i++)
            if (__atomic_load_n(slots_[i], __ATOMIC_RELAXED) != entries_[i]) return false;
        at = page_ + (linear & (lib::page_size - 1));
        return true;
    }

    // After a walk by `count` entries, which the guest may have changed since: then find() says no.
    void remember(lib::u64 cr3, lib::u64 linear, lib::u8 const* page, std::array<lib::u64 const*, levels> const& slots,
                  std::array<lib::u64, levels> const& entries, unsigned count) {
        cr3_ = cr3;
        linear_ = linear;
        page_ = page;
        for (unsigned i = 0; i < levels; i++) {
            unsigned const from = i < count ? i : 0; // fewer levels: the first is compared again
            slots_[i] = slots[from];
            entries_[i] = entries[from];
        }
    }
    void forget() {
        for (unsigned i = 0; i < levels; i++) {
            slots_[i] = &never_;
            entries_[i] = 1;
        }
    }

private:
    lib::u64 cr3_ = 0;
    lib::u64 linear_ = 0;
    lib::u8 const* page_ = nullptr;
    std::array<lib::u64 const*, levels> slots_;
    std::array<lib::u64, levels> entries_;
    static constexpr lib::u64 never_ = 0; // differs from entries_ after forget()
};

// More than one, because an interrupt's handler is seldom in the page of the code that it interrupts.
class CodeWindows {
public:
    // The one for this address.
    CodeWindow& of(lib::u64 linear) { return windows_.data()[linear / lib::page_size % count]; }

private:
    static constexpr unsigned count = 4;
    std::array<CodeWindow, count> windows_;
};

} // namespace vm
