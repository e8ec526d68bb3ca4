// SPDX-License-Identifier: MIT
#include <platform/msix_table.hpp>

namespace platform {
namespace {

constexpr u32 MASK_BIT = 1; // of an entry's vector control

} // namespace

void MsixTable::reset() {
    state_.entries.fill({0, 0, MASK_BIT});
    state_.pending = 0;
    is_enabled_ = is_masked_ = false;
}

bool MsixTable::is_open(u32 vector) const {
    return is_enabled_ && !is_masked_ && (state_.entries[vector].control & MASK_BIT) == 0;
}

IoReply MsixTable::table_io(IoRequest const& request) {
    u64 const offset = request.offset;
    bool const is_allowed = (request.size == 4 || request.size == 8) && offset % request.size == 0;
    if (!is_allowed || offset >= table_size()) return request.op == Op::Read ? floating_bus : IoReply{};
    if (request.op == Op::Write) {
        write(offset, static_cast<u32>(request.data));
        if (request.size == 8) write(offset + 4, static_cast<u32>(request.data >> 32));
        send_pending();
        return {};
    }
    Entry const& entry = state_.entries[offset / entry_size];
    u64 const half = offset % entry_size < 8 ? entry.address : entry.data | u64{entry.control} << 32;
    return {half >> (offset % 8 * 8)};
}

void MsixTable::write(u64 offset, u32 value) {
    Entry& entry = state_.entries[offset / entry_size];
    switch (offset % entry_size) {
    case 0: entry.address = (entry.address & ~u64{0xffff'ffff}) | (value & ~3U); break;
    case 4: entry.address = (entry.address & 0xffff'ffff) | u64{value} << 32; break;
    case 8: entry.data = value; break;
    default: entry.control = value & MASK_BIT; break;
    }
}

IoReply MsixTable::pending_io(IoRequest const& request) const {
    if (request.op == Op::Write) return {};
    if (request.offset >= sizeof(state_.pending)) return {0};
    return {state_.pending >> (request.offset * 8)};
}

void MsixTable::raise(u32 vector) {
    if (!is_enabled_ || vector >= count_) return;
    if (is_open(vector))
        host_.send_msi({state_.entries[vector].address, state_.entries[vector].data});
    else
        state_.pending |= u64{1} << vector;
}

void MsixTable::send_pending() {
    if (state_.pending == 0) return;
    for (u32 vector = 0; vector < count_; vector++) {
        if ((state_.pending >> vector & 1) == 0 || !is_open(vector)) continue;
        state_.pending &= ~(u64{1} << vector);
        raise(vector);
    }
}

void MsixTable::set_control(bool is_enabled, bool is_masked) {
    is_enabled_ = is_enabled;
    is_masked_ = is_masked;
    send_pending();
}

lib::Result<void> MsixTable::restore(State const& state) {
    for (Entry const& entry : state.entries)
        if ((entry.control & ~MASK_BIT) != 0 || (entry.address & 3) != 0) return lib::fail(lib::Errc::BadFormat);
    if (count_ < max_vectors && state.pending >> count_ != 0) return lib::fail(lib::Errc::BadFormat);
    state_ = state;
    return {};
}

} // namespace platform
