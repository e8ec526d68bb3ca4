// SPDX-License-Identifier: MIT
// Streams of RDMSR and WRMSR. Whatever the value: what reaches the hooks is architecturally valid, a stored MSR reads
// back as it was accepted, and writing back what was read is accepted wherever writing is possible at all.
#include "require.hpp"

#include <array>
#include <cstring>
#include <vm/msr_policy.hpp>

namespace {

using fuzz::require;
using vm::HardwareMsr;
using vm::MsrResult;
using vm::u32;
using vm::u64;
using vm::u8;

struct Vcpu final : vm::MsrHooks {
    std::array<u64, 16> hardware{};
    u64 tsc = 0, paging = 0;
    vm::ControlRegisterRules rules{};
    Vcpu() { hardware[static_cast<u8>(HardwareMsr::Pat)] = vm::pat_reset; }
    u64 read_hardware(HardwareMsr which) override { return hardware[static_cast<u8>(which)]; }
    void write_hardware(HardwareMsr which, u64 value) override {
        if (which == HardwareMsr::Pat) require(vm::is_valid_pat(value));
        if (which == HardwareMsr::Efer) require((value & ~rules.efer) == 0);
        if (which == HardwareMsr::Lstar || which == HardwareMsr::FsBase || which == HardwareMsr::GsBase)
            require(vm::is_canonical(value));
        if (which == HardwareMsr::TscAux || which == HardwareMsr::SysenterCs || which == HardwareMsr::Fmask)
            require(value >> 32 == 0);
        hardware[static_cast<u8>(which)] = value;
    }
    u64 cr0() override { return paging; }
    u64 guest_tsc() override { return tsc; }
    void shift_tsc(u64 delta) override { tsc += delta; }
    void publish_time(u64 at, u64) override { require(at % 4 == 0); }
    void publish_wall_clock(u64 at) override { require(at % 4 == 0); }
    u64 read_tsc_deadline() override { return 0; }
    void write_tsc_deadline(u64) override {}
    u64 read_apic_base() override { return 0; }
    MsrResult write_apic_base(u64) override { return MsrResult::GeneralProtection; }
    MsrResult read_x2apic(u32 index, u64& value) override {
        require(index >= 0x800 && index <= 0x8ff);
        value = 0;
        return MsrResult::Done;
    }
    MsrResult write_x2apic(u32 index, u64) override {
        require(index >= 0x800 && index <= 0x8ff);
        return MsrResult::Done;
    }
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    if (size == 0) return 0;
    Vcpu vcpu;
    vm::MsrFacts facts;
    facts.vendor = (data[0] & 1) != 0 ? vm::CpuVendor::Amd : vm::CpuVendor::Intel;
    facts.tsc_aux = (data[0] & 2) != 0;
    facts.xsaves = (data[0] & 4) != 0;
    facts.rules = {.cr4 = 0, .efer = 0xd01, .xcr0 = 7, .xss = 0, .physical_bits = 40};
    vcpu.paging = (data[0] & 8) != 0 ? vm::cr0::PG : 0;
    vcpu.rules = facts.rules;
    vm::MsrPolicy msrs(facts, vcpu);
    ++data;
    --size;
    constexpr u32 bases[] = {0, 0xc000'0000, 0xc001'0000, 0xc001'1000, 0x4b56'4000};
    for (; size >= 12; data += 12, size -= 12) {
        u32 selector = 0;
        u64 value = 0;
        std::memcpy(&selector, data, 4);
        std::memcpy(&value, data + 4, 8);
        u32 const index = (selector & 0x8000'0000) != 0 ? selector : bases[(selector >> 12) % 5] + (selector & 0xfff);
        u64 before = 0, after = 0;
        bool const readable = msrs.read(index, before) == MsrResult::Done;
        bool const written = msrs.write(index, value) == MsrResult::Done;
        require(msrs.find(index) != nullptr || (index >= 0x800 && index <= 0x8ff) || (!readable && !written));
        if (!readable) continue;
        require(msrs.read(index, after) == MsrResult::Done);
        vm::MsrRule const* const rule = msrs.find(index);
        if (rule == nullptr || rule->read != vm::MsrRead::Stored) continue;
        require(written ? after == value : after == before || index == vm::msr::IA32_TSC_ADJUST);
        require(msrs.write(index, after) == MsrResult::Done);
    }
    return 0;
}
