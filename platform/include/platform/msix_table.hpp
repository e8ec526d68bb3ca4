// SPDX-License-Identifier: MIT
#pragma once
// The MSI-X table and pending bits of one PCI function: which message each of its vectors sends, and which wait behind
// a mask. [pci/3.0] 6.8.2, 6.8.3
//
// Not supported: accesses of one or two bytes to the table (the specification allows dwords and quadwords only; others
// read as ones and write nothing).
#include <array>
#include <platform/abi.hpp>
#include <platform/state.hpp>

namespace platform {

class MsixTable {
public:
    static constexpr u32 max_vectors = 64;
    static constexpr u64 entry_size = 16;
    struct Entry {
        u64 address;
        u32 data;
        u32 control;
    };
    struct State {
        std::array<Entry, max_vectors> entries;
        u64 pending;
    };

    // `count`: 1 to max_vectors.
    MsixTable(Host& host, u32 count) : host_(host), count_(count) { reset(); }
    u32 count() const { return count_; }
    u64 table_size() const { return count_ * entry_size; }

    // Accesses to the table and to the pending bits, at offsets relative to either.
    IoReply table_io(IoRequest const& request);
    IoReply pending_io(IoRequest const& request) const;

    // Sends the vector's message, or remembers it while a mask is set. Nothing happens while MSI-X is off.
    void raise(u32 vector);
    // The capability's enable and function-mask bits together with the right to write to memory.
    void set_control(bool is_enabled, bool is_masked);
    bool is_enabled() const { return is_enabled_; }
    void reset();
    State save() const { return state_; }
    // The control bits come from set_control() afterwards.
    lib::Result<void> restore(State const& state);

private:
    void write(u64 offset, u32 value);
    void send_pending();
    bool is_open(u32 vector) const;

    Host& host_;
    State state_; // reset() makes it
    u32 count_;
    bool is_enabled_ = false;
    bool is_masked_ = false;
};

} // namespace platform
