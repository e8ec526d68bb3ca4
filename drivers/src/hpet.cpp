// SPDX-License-Identifier: MIT
#include <drivers/hpet.hpp>

#include <lib/x86/instructions.hpp>

namespace drivers {
namespace {

constexpr u64 GCAP_ID = 0x00; // general capabilities; the upper half is the period
constexpr u64 GEN_CONF = 0x10;
constexpr u64 MAIN_CNT = 0xf0;
constexpr u32 GEN_CONF_ENABLE = 1;
constexpr u32 longest_period = 100'000'000; // fs: the specification demands 10 MHz or more
constexpr u32 shortest_period = 100'000;    // 10 GHz: nothing real

} // namespace

lib::Result<void> Hpet::start() {
    u32 const revision = lib::x86::load32(base_ + GCAP_ID) & 0xff;
    u32 const period = lib::x86::load32(base_ + GCAP_ID + 4);
    if (revision == 0 || period < shortest_period || period > longest_period) return lib::fail(lib::Errc::Unsupported);
    u32 const configuration = lib::x86::load32(base_ + GEN_CONF);
    if ((configuration & GEN_CONF_ENABLE) == 0) lib::x86::store32(base_ + GEN_CONF, configuration | GEN_CONF_ENABLE);
    period_ = period;
    return {};
}

u32 Hpet::read() const { return lib::x86::load32(base_ + MAIN_CNT); }

} // namespace drivers
