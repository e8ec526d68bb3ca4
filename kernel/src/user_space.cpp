// SPDX-License-Identifier: MIT
#include <bit>
#include <cstring>
#include <kernel/cpu.hpp>
#include <kernel/page_table.hpp>
#include <kernel/user_space.hpp>

namespace kernel {

lib::Result<void> UserSpace::create(UserContext const& context) {
    // Where a CPU has no NX, its data is executable, as Mullion's own is.
    u64 const absent_bits = cpu_features().no_execute ? 0 : UserEntry::NoExecute::mask;
    table_ = TranslationTable<UserEntry>({.largest_level = 2, .absent_bits = absent_bits});
    TRY(table_.create_root());
    if (!has_service_page_tables()) {
        table_.share_rest_of(kernel_page_table().root());
        return {};
    }
    entry_pages_ = TranslationTable<PageEntry>({.largest_level = 1, .absent_bits = absent_bits});
    TRY(entry_pages_.create_root());
    TRY(map_entry_pages(entry_pages_, context));
    table_.share_rest_of(entry_pages_.root());
    return {};
}

UserSpace::~UserSpace() {
    for (Piece const& piece : pieces_)
        free_frames(piece.base, piece.order);
}

lib::Result<void> UserSpace::add(u64 at, u64 size, Rights rights, std::span<u8 const> bytes) {
    if (size == 0 || bytes.size() > size || pieces_.is_full()) return lib::fail(lib::Errc::OutOfRange);
    u64 const pages = lib::align_up(size, lib::page_size) / lib::page_size;
    auto const order = static_cast<lib::u32>(std::bit_width(pages - 1));
    HostPhys const base = TRY(allocate_frames(order));
    (void)pieces_.push_back({base, order}); // there was room; freed with the rest
    bytes_ += lib::page_size << order;
    std::memset(phys_to_virt(base), 0, lib::page_size << order);
    if (!bytes.empty()) std::memcpy(phys_to_virt(base), bytes.data(), bytes.size());
    // No CPU has seen the table: nothing is to be flushed.
    return table_.map({lib::HostVirt{at}, base, pages * lib::page_size, rights}, [] {});
}

bool UserSpace::read(u64 at, std::span<u8> out) const {
    constexpr u64 half = u64{1} << 47;
    if (at >= half || out.size() > half - at) return false;
    // Looked up first, so that a bad end is not found after half of the copy.
    for (u64 page = lib::align_down(at, lib::page_size); page < at + out.size(); page += lib::page_size)
        if (!table_.translate(lib::HostVirt{page})) return false;
    for (std::size_t done = 0; done < out.size();) {
        u64 const from = at + done;
        auto const part = std::min<u64>(out.size() - done, lib::page_size - from % lib::page_size);
        // By the direct map: the user's mapping is closed to ring 0.
        std::memcpy(out.data() + done, phys_to_virt(table_.translate(lib::HostVirt{from})->to), part);
        done += part;
    }
    return true;
}

} // namespace kernel
