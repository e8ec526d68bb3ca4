// SPDX-License-Identifier: MIT
// First and later writes to RAM that nothing has touched since the VM began.
#include "bench/measure.hpp"

namespace bench {
namespace {

constexpr u64 small_area = 32 * lib::MiB, large_area = 64 * lib::MiB, large_page = 2 * lib::MiB;

void touch(std::string_view name, u64 start, u64 step, unsigned count) {
    if (count == 0 || start + step * count > guest::memory_top()) {
        report_absent(name);
        return;
    }
    u64 at = start;
    auto const next = [&at, step] {
        x86::store8(at, 1);
        at += step;
    };
    take_samples(0, count, next);
    report(name, count, empty_pair);
}

} // namespace

void memory() {
    touch("mem_touch_4k_first", small_area, lib::page_size, max_samples);
    touch("mem_touch_4k_again", small_area, lib::page_size, max_samples);
    u64 const room = guest::memory_top() > large_area ? (guest::memory_top() - large_area) / large_page : 0;
    touch("mem_touch_2m_first", large_area, large_page, static_cast<unsigned>(std::min<u64>(room, 64)));
}

} // namespace bench
