// SPDX-License-Identifier: MIT
// A host whose CPUID is arbitrary bytes, and any question to the policy made from it. The guest's answers keep the
// promises that do not depend on the host: no virtualization, a hypervisor, no MONITOR, sane topology and sizes.
#include "require.hpp"

#include <cstring>
#include <vm/cpuid_policy.hpp>

namespace {

using fuzz::require;
using vm::CpuidRegs;
using vm::u32;
using vm::u64;
using vm::u8;

struct Host {
    u8 const* data;
    std::size_t size;
    CpuidRegs read(u32 leaf, u32 subleaf) {
        CpuidRegs regs{};
        if (leaf == 0)
            return (data[0] & 1) != 0 ? CpuidRegs{0x20, 0x756e6547, 0x6c65746e, 0x49656e69}
                                      : CpuidRegs{0x20, 0x68747541, 0x444d4163, 0x69746e65};
        if (leaf == 0x80000000) return {0x80000021, 0, 0, 0};
        std::size_t const at = (leaf * 37U + subleaf * 11U) % (size - sizeof regs + 1);
        std::memcpy(&regs, data + at, sizeof regs);
        return regs;
    }
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    if (size < 48) return 0;
    Host host{data, size};
    vm::PlatformFacts facts;
    std::memcpy(&facts.tsc_hz, data + 1, 8);
    facts.vcpu_count = 1 + data[9] % 64U;
    facts.xcr0_allowed = data[10];
    facts.invariant_tsc = (data[11] & 1) != 0;
    facts.invpcid = (data[11] & 2) != 0;
    facts.rdtscp = (data[11] & 4) != 0;
    facts.xsaves = (data[11] & 8) != 0;
    facts.pku = (data[11] & 16) != 0;
    vm::CpuidPolicy const guest = vm::CpuidPolicy::create(vm::CpuidReader::to<&Host::read>(host), facts);
    vm::CpuidDynamic dynamic;
    std::memcpy(&dynamic.xcr0, data + 12, 8);
    dynamic.apic_id = data[20];

    CpuidRegs const features = guest.lookup(1, 0, dynamic);
    require((features.ecx & 0x0800017c) == 0 && (features.ecx >> 31) == 1);
    require((guest.lookup(0x80000001, 0, dynamic).ecx & 4) == 0);
    require((guest.lookup(7, 0, dynamic).edx & 0xfc000000) == 0 && (guest.lookup(7, 0, dynamic).ebx & 0x0240d814) == 0);
    CpuidRegs const core = guest.lookup(0xb, 1, dynamic);
    require(core.ebx == facts.vcpu_count && (u64{1} << core.eax) >= facts.vcpu_count);
    require((guest.rules().xcr0 & ~u64{0x2e7}) == 0 &&
            (guest.rules().xcr0 == 0 || vm::is_valid_xcr0(guest.rules().xcr0, ~u64{0})));
    for (std::size_t at = 21; at + 8 <= size && at < 421; at += 8) {
        u32 leaf = 0, subleaf = 0;
        std::memcpy(&leaf, data + at, 4);
        std::memcpy(&subleaf, data + at + 4, 4);
        static_cast<void>(guest.lookup(leaf, subleaf, dynamic));
        static_cast<void>(guest.lookup(leaf & 0xc000003f, subleaf & 0x3f, dynamic));
    }
    return 0;
}
