// SPDX-License-Identifier: MIT
#include <algorithm>
#include <lib/guest_memory.hpp>

namespace lib {
namespace {

// Calls `step(host pointer, offset, bytes)` for each run of [at, at + size) that lies in one piece.
template <typename Find, typename Step> lib::Result<void> for_each_run(GuestPhys at, u64 size, Find find, Step step) {
    u64 done = 0;
    while (done < size) {
        if (at.value + done < at.value) return lib::fail(lib::Errc::BadGuest);
        RamPiece const* const piece = find(GuestPhys{at.value + done});
        if (piece == nullptr) return lib::fail(lib::Errc::BadGuest);
        u64 const offset = at.value + done - piece->base.value;
        u64 const count = std::min(size - done, piece->size - offset);
        step(piece->host + offset, done, count);
        done += count;
    }
    return {};
}

} // namespace

bool GuestMemory::contains(GuestPhys at, u64 size) const {
    if (in_one_piece(at, size) != nullptr) return true;
    return for_each_run(at, size, [this](GuestPhys p) { return find(p); }, [](u8*, u64, u64) {}).has_value();
}

lib::Result<void> GuestMemory::read(GuestPhys at, std::span<u8> out) const {
    if (u8 const* const host = in_one_piece(at, out.size()); host != nullptr) {
        std::memcpy(out.data(), host, out.size());
        return {};
    }
    return for_each_run(
        at, out.size(), [this](GuestPhys p) { return find(p); },
        [&](u8 const* host, u64 offset, u64 count) { std::memcpy(out.data() + offset, host, count); });
}

lib::Result<void> GuestMemory::write(GuestPhys at, std::span<u8 const> bytes) const {
    if (u8* const host = in_one_piece(at, bytes.size()); host != nullptr) {
        std::memcpy(host, bytes.data(), bytes.size());
        return {};
    }
    if (!contains(at, bytes.size())) return lib::fail(lib::Errc::BadGuest); // all or nothing
    return for_each_run(
        at, bytes.size(), [this](GuestPhys p) { return find(p); },
        [&](u8* host, u64 offset, u64 count) { std::memcpy(host, bytes.data() + offset, count); });
}

lib::Result<void> GuestMemory::fill(GuestPhys at, u64 size, u8 value) const {
    if (!contains(at, size)) return lib::fail(lib::Errc::BadGuest);
    return for_each_run(
        at, size, [this](GuestPhys p) { return find(p); },
        [&](u8* host, u64, u64 count) { std::memset(host, value, count); });
}

} // namespace lib
