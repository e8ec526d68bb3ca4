// SPDX-License-Identifier: MIT
#include <algorithm>
#include <atomic>
#include <kernel/cpu.hpp>
#include <kernel/log.hpp>
#include <kernel/machine_check.hpp>
#include <kernel/panic.hpp>
#include <lib/bits.hpp>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>

namespace kernel {
namespace {

namespace x86 = lib::x86;
using lib::bit;
using lib::u32;
using lib::u64;

// [intel/vol3] 17.3, [amd/vol2] 9.3
constexpr u32 MCG_CAP = 0x179, MCG_STATUS = 0x17a, MCG_CTL = 0x17b, MC0_CTL = 0x400, MC0_STATUS = 0x401,
              MC0_ADDR = 0x402, MC0_MISC = 0x403, per_bank = 4;
constexpr u64 cap_count = 0xff, cap_has_control = bit(8);
constexpr u64 RIPV = bit(0); // what was interrupted may be restarted
constexpr u64 VAL = bit(63), OVER = bit(62), UC = bit(61), EN = bit(60), MISCV = bit(59), ADDRV = bit(58),
              PCC = bit(57);
constexpr u32 leaf1_mce = 1U << 7, leaf1_mca = 1U << 14;

constinit std::atomic<u64> cr4_bit{0};

u64 read_or_zero(u32 index) {
    u64 value = 0;
    return x86::rdmsr_safe(index, value) ? value : 0;
}

// What the manuals ask of an operating system; older CPUs want some errors masked (bank 0 of Intel's P6, the GART's of
// AMD before family 17h), which the firmware knows.
bool may_enable_all_errors(u32 signature) {
    u32 const family = (signature >> 8 & 0xf) == 0xf ? 0xf + (signature >> 20 & 0xff) : signature >> 8 & 0xf;
    u32 const model = (signature >> 4 & 0xf) | (signature >> 12 & 0xf0);
    return cpu_features().is_amd ? family >= 0x17 : family > 6 || (family == 6 && model >= 0x1a);
}

} // namespace

u64 machine_check_cr4() { return cr4_bit.load(std::memory_order_relaxed); }

void enable_machine_checks() {
    auto const leaf = x86::cpuid(1);
    if ((leaf.edx & leaf1_mce) == 0) {
        cr4_bit.store(0, std::memory_order_relaxed);
        return;
    }
    if ((leaf.edx & leaf1_mca) != 0) {
        MachineCheck before;
        before.read_banks();
        if (before.count_ != 0) {
            std::array<char, 600> text{};
            lib::BufferSink sink(text);
            before.print(sink);
            log_warning("CPU {}: a machine check from before the start: {}", this_cpu().index, sink.view());
        }
        before.empty_banks();
        u64 const capabilities = read_or_zero(MCG_CAP);
        if ((capabilities & cap_has_control) != 0) x86::wrmsr_safe(MCG_CTL, ~u64{0});
        u32 const count = std::min<u32>(capabilities & cap_count, MachineCheck::most_banks);
        for (u32 i = 0; may_enable_all_errors(leaf.eax) && i < count; i++)
            x86::wrmsr_safe(MC0_CTL + i * per_bank, ~u64{0});
    }
    x86::write_cr4(x86::read_cr4() | x86::Cr4::MCE::mask);
    cr4_bit.store(x86::Cr4::MCE::mask, std::memory_order_relaxed);
}

void MachineCheck::read_banks() {
    global_status_ = read_or_zero(MCG_STATUS);
    u32 const count = std::min<u32>(read_or_zero(MCG_CAP) & cap_count, most_banks);
    for (u32 i = 0; i < count; i++) {
        u32 const at = i * per_bank;
        u64 const status = read_or_zero(MC0_STATUS + at);
        if ((status & VAL) == 0) continue;
        banks_[count_++] = {i, status, (status & ADDRV) != 0 ? read_or_zero(MC0_ADDR + at) : 0,
                            (status & MISCV) != 0 ? read_or_zero(MC0_MISC + at) : 0};
    }
}

void MachineCheck::empty_banks() const {
    for (u32 i = 0; i < count_; i++)
        x86::wrmsr_safe(MC0_STATUS + banks_[i].number * per_bank, 0);
}

MachineCheck MachineCheck::take() {
    MachineCheck found;
    found.read_banks();
    bool is_lost = (found.global_status_ & RIPV) == 0;
    bool is_ours = false;
    for (u32 i = 0; i < found.count_; i++) {
        u64 const status = found.banks_[i].status;
        if ((status & (UC | EN)) != (UC | EN)) continue; // corrected, or not what interrupted
        is_ours = true;
        is_lost = is_lost || (status & (PCC | OVER)) != 0; // of two errors one is unknown
    }
    found.kind_ = is_lost ? Kind::Fatal : is_ours ? Kind::Recoverable : Kind::Elsewhere;
    if (!is_lost) found.empty_banks();
    x86::wrmsr_safe(MCG_STATUS, 0); // MCIP: a machine check with it set is a reset
    return found;
}

MachineCheck::Kind take_machine_check(std::string_view what) {
    auto const check = MachineCheck::take();
    std::array<char, 600> text{};
    lib::BufferSink sink(text);
    lib::format(sink, "machine check on CPU {} while {} ran: ", this_cpu().index, what);
    check.print(sink);
    if (check.kind() == MachineCheck::Kind::Fatal) panic(sink.view());
    log_error("{}", sink.view());
    return check.kind();
}

void MachineCheck::print(lib::TextSink& sink) const {
    lib::format(sink, "MCG_STATUS {:#x}", global_status_);
    if (count_ == 0) lib::format(sink, ", no bank has anything");
    for (u32 i = 0; i < count_; i++) {
        Bank const& bank = banks_[i];
        lib::format(sink, "; bank {} status {:#x}", bank.number, bank.status);
        if ((bank.status & ADDRV) != 0) lib::format(sink, " address {:#x}", bank.address);
        if ((bank.status & MISCV) != 0) lib::format(sink, " misc {:#x}", bank.misc);
    }
}

} // namespace kernel
