// SPDX-License-Identifier: MIT
// Computes the CPUID of one VM from the host's and the allow-list.
#include <algorithm>
#include <bit>
#include <vm/cpuid_allow_list.hpp>
#include <vm/cpuid_policy.hpp>

namespace vm {

using namespace cpuid;

namespace {

u32 characters(char const* text) {
    u32 value = 0;
    for (unsigned i = 0; i < 4; ++i)
        value |= static_cast<u32>(static_cast<u8>(text[i])) << (8 * i);
    return value;
}

CpuidRegs operator&(CpuidRegs a, CpuidRegs b) { return {a.eax & b.eax, a.ebx & b.ebx, a.ecx & b.ecx, a.edx & b.edx}; }
CpuidRegs operator|(CpuidRegs a, CpuidRegs b) { return {a.eax | b.eax, a.ebx | b.ebx, a.ecx | b.ecx, a.edx | b.edx}; }

// How many bits number `count` things.
u32 bits_for(u32 count) { return count <= 1 ? 0 : static_cast<u32>(std::bit_width(count - 1)); }

} // namespace

CpuVendor vendor_of(CpuidRegs const& leaf0) {
    bool const amd =
        leaf0.ebx == characters("Auth") && leaf0.edx == characters("enti") && leaf0.ecx == characters("cAMD");
    bool const hygon =
        leaf0.ebx == characters("Hygo") && leaf0.edx == characters("nGen") && leaf0.ecx == characters("uine");
    return amd || hygon ? CpuVendor::Amd : CpuVendor::Intel;
}

class CpuidPolicy::Builder {
public:
    Builder(CpuidPolicy& policy, CpuidReader host, PlatformFacts const& facts)
        : policy_(policy), host_(host), facts_(facts) {
        policy_.vendor_ = vendor_of(host_(0, 0));
        policy_.crystal_ = crystal_of(facts_.tsc_hz);
        host_basic_ = host_(0, 0).eax;
        host_extended_ = host_(0x8000'0000, 0).eax;
        if (host_extended_ < 0x8000'0000) host_extended_ = 0x8000'0000;
    }

    void build() {
        choose_ranges();
        xcr0_ = usable_xcr0();
        for (u32 leaf = 0; leaf <= policy_.max_basic_; ++leaf)
            slot(leaf) = {.kind = Kind::Plain};
        for (u32 leaf = 0x4000'0000; leaf <= 0x4000'0010; ++leaf)
            slot(leaf) = {.kind = Kind::Plain};
        for (u32 leaf = 0x8000'0000; leaf <= policy_.max_extended_; ++leaf)
            slot(leaf) = {.kind = Kind::Plain};
        basic();
        structured_features();
        caches();
        topology();
        xsave();
        if (is_intel()) frequencies();
        hypervisor();
        extended();
        rules();
    }

private:
    bool is_intel() const { return policy_.vendor_ == CpuVendor::Intel; }

    Slot& slot(u32 leaf) { return policy_.slots_[(leaf >> 30) * group_size + (leaf & 0x3fff'ffff)]; }

    bool is_offered(u32 leaf) const {
        return leaf >= 0x8000'0000 ? leaf <= policy_.max_extended_ : leaf <= policy_.max_basic_;
    }

    u8 reserve(u32 rows) {
        u32 const first = used_;
        used_ += rows;
        return static_cast<u8>(first);
    }
    CpuidRegs& row(u32 leaf, Kind kind = Kind::Plain) { return rows(leaf, 1, kind); }
    CpuidRegs& rows(u32 leaf, u32 count, Kind kind) {
        u8 const first = reserve(count);
        slot(leaf) = {.row = first, .count = static_cast<u8>(count), .kind = kind};
        return policy_.rows_[first];
    }

    // What the host says about a leaf that it has.
    CpuidRegs host(u32 leaf, u32 subleaf = 0) const {
        bool const known = leaf >= 0x8000'0000 ? leaf <= host_extended_ : leaf <= host_basic_;
        return known ? host_(leaf, subleaf) : CpuidRegs{};
    }
    CpuidRegs allowed(u32 leaf, u32 subleaf = 0) const {
        Who const us = is_intel() ? Who::Intel : Who::Amd;
        for (AllowedLeaf const& entry : allow_list)
            if (entry.leaf == leaf && entry.subleaf == subleaf && (entry.who == Who::Both || entry.who == us))
                return (host(leaf, subleaf) & entry.pass) | entry.forced;
        return {};
    }

    void choose_ranges() {
        if (is_intel()) {
            policy_.max_basic_ = host_basic_ >= 0x1f ? 0x1f : 0x16; // at least the frequencies, whatever the host has
            policy_.max_extended_ = 0x8000'0008;
        } else {
            policy_.max_basic_ = std::min(std::max(host_basic_, u32{7}), u32{0xd});
            policy_.max_extended_ = std::clamp(host_extended_, u32{0x8000'0008}, u32{0x8000'0021});
        }
    }

    u64 usable_xcr0() const {
        bool const host_xsave = (host(1).ecx & leaf1::XSAVE) != 0 && policy_.max_basic_ >= 0xd;
        if (!host_xsave) return 0;
        CpuidRegs const leaf = host(0xd, 0);
        u64 usable = facts_.xcr0_allowed & (xcr0::X87 | xcr0::SSE | xcr0::AVX | xcr0::AVX512);
        if (facts_.pku && (host(7).ecx & leaf7::PKU) != 0) usable |= xcr0::PKRU;
        usable &= leaf.eax | static_cast<u64>(leaf.edx) << 32;
        if ((usable & (xcr0::X87 | xcr0::SSE)) != (xcr0::X87 | xcr0::SSE)) return 0;
        if ((host(1).ecx & mask(28)) == 0) usable &= ~xcr0::AVX;
        bool const avx512 = (usable & xcr0::AVX) != 0 && (usable & xcr0::AVX512) == xcr0::AVX512;
        return avx512 ? usable : usable & ~xcr0::AVX512;
    }
    bool has_avx() const { return (xcr0_ & xcr0::AVX) != 0; }
    bool has_avx512() const { return (xcr0_ & xcr0::AVX512) != 0; }

    void basic() {
        CpuidRegs& leaf0 = row(0);
        leaf0 = allowed(0);
        leaf0.eax = policy_.max_basic_;

        CpuidRegs& leaf1 = row(1, Kind::Features);
        leaf1 = allowed(1);
        u32 const logical = facts_.vcpu_count > 1 ? std::min(u32{1} << bits_for(facts_.vcpu_count), u32{255}) : 1;
        leaf1.ebx |= logical << 16;
        if (facts_.vcpu_count > 1) leaf1.edx |= leaf1::HTT;
        if (facts_.x2apic) leaf1.ecx |= leaf1::X2APIC;
        if (facts_.tsc_deadline) leaf1.ecx |= leaf1::TSC_DEADLINE;
        if (xcr0_ == 0) leaf1.ecx &= ~leaf1::XSAVE;
        if (!has_avx()) leaf1.ecx &= ~leaf1::needs_avx;

        row(2) = allowed(2);
        row(6) = allowed(6);
    }

    void structured_features() {
        u32 const last = std::min(host(7).eax, u32{1});
        CpuidRegs* const leaf7 = &rows(7, last + 1, Kind::Structured);
        leaf7[0] = allowed(7, 0);
        leaf7[0].eax = last;
        if (!facts_.invpcid || (policy_.rows_[slot(1).row].ecx & leaf1::PCID) == 0) leaf7[0].ebx &= ~leaf7::INVPCID;
        if (!facts_.rdtscp) leaf7[0].ecx &= ~leaf7::RDPID;
        if ((xcr0_ & xcr0::PKRU) == 0) leaf7[0].ecx &= ~leaf7::PKU;
        if (!has_avx()) {
            leaf7[0].ebx &= ~leaf7::AVX2;
            leaf7[0].ecx &= ~leaf7::ecx_needs_avx;
        }
        if (!has_avx512()) {
            leaf7[0].ebx &= ~leaf7::ebx_needs_avx512;
            leaf7[0].ecx &= ~leaf7::ecx_needs_avx512;
            leaf7[0].edx &= ~leaf7::edx_needs_avx512;
        }
        if (last < 1) return;
        leaf7[1] = allowed(7, 1);
        if (!has_avx()) leaf7[1].eax &= ~leaf7::eax1_needs_avx;
        if (!has_avx512()) leaf7[1].eax &= ~leaf7::eax1_needs_avx512;
    }

    // Leaves 4 and 8000001Dh describe caches alike; sharing must fit one thread per core and one package.
    void caches_of(u32 leaf) {
        std::array<CpuidRegs, max_cache_levels> found{};
        u32 count = 0;
        while (count < max_cache_levels) {
            CpuidRegs cache = host(leaf, count);
            u32 const type = cache.eax & 0x1f;
            if (type == 0 || type > 3) break;
            u32 const level = (cache.eax >> 5) & 7;
            u32 const sharing = level >= 3 ? (u32{1} << bits_for(facts_.vcpu_count)) - 1 : 0;
            cache.eax = (cache.eax & 0x3ff) | std::min(sharing, u32{0xfff}) << 14;
            if (leaf == 4) cache.eax |= std::min((u32{1} << bits_for(facts_.vcpu_count)) - 1, u32{0x3f}) << 26;
            cache.edx &= 7;
            found[count++] = cache;
        }
        if (count == 0) return;
        CpuidRegs* const rows_of_leaf = &rows(leaf, count, Kind::Indexed);
        std::copy_n(found.begin(), count, rows_of_leaf);
    }
    void caches() {
        if (is_intel()) caches_of(4);
        bool const extensions = (host(0x8000'0001).ecx & leaf80000001::TOPOLOGY_EXTENSIONS) != 0;
        if (!is_intel() && extensions && is_offered(0x8000'001d)) caches_of(0x8000'001d);
    }

    // One thread per core, all cores in one package. EDX, the x2APIC id, is filled in at lookup.
    void topology_of(u32 leaf) {
        if (!is_offered(leaf)) return;
        CpuidRegs* const levels = &rows(leaf, 2, Kind::Topology);
        levels[0] = {0, 1, 1U << 8, 0};
        levels[1] = {bits_for(facts_.vcpu_count), facts_.vcpu_count & 0xffff, 2U << 8, 0};
    }
    void topology() {
        topology_of(0xb);
        if (is_intel()) topology_of(0x1f);
        bool const extensions = (host(0x8000'0001).ecx & leaf80000001::TOPOLOGY_EXTENSIONS) != 0;
        if (!is_intel() && extensions && is_offered(0x8000'001e)) row(0x8000'001e, Kind::AmdTopology);
    }

    void xsave() {
        if (xcr0_ == 0) return;
        CpuidRegs* const leaf = &rows(0xd, xsave_components, Kind::Xsave);
        policy_.xsave_rows_ = slot(0xd).row;
        leaf[1] = allowed(0xd, 1);
        if (!facts_.xsaves) leaf[1].eax &= ~mask(3);
        policy_.xsave_features_ = leaf[1].eax;
        CpuidRegs const host_supervisor = host(0xd, 1);
        xss_ = (leaf[1].eax & mask(3)) == 0
                   ? 0
                   : facts_.xss_allowed & (host_supervisor.ecx | static_cast<u64>(host_supervisor.edx) << 32);
        leaf[1].ecx = static_cast<u32>(xss_);
        leaf[1].edx = static_cast<u32>(xss_ >> 32);
        for (u32 component = 2; component < xsave_components; ++component) {
            if (((xcr0_ | xss_) & bit(component)) == 0) continue;
            CpuidRegs const area = host(0xd, component);
            leaf[component] = {area.eax, area.ebx, area.ecx & 3, 0};
        }
        leaf[0] = {static_cast<u32>(xcr0_), 0, policy_.xsave_size(xcr0_), static_cast<u32>(xcr0_ >> 32)};
    }

    void frequencies() {
        row(0x15) = {1, policy_.crystal_.multiplier, policy_.crystal_.hz, 0};
        u32 const mhz = static_cast<u32>(std::min((facts_.tsc_hz + 500'000) / 1'000'000, u64{0xffff}));
        row(0x16) = {mhz, mhz, 100, 0};
    }

    void hypervisor() {
        row(0x4000'0000) = {0x4000'0010, characters(&hypervisor_signature[0]), characters(&hypervisor_signature[4]),
                            characters(&hypervisor_signature[8])};
        row(0x4000'0010) = {static_cast<u32>(facts_.tsc_hz / 1000), policy_.crystal_.hz / 1000, 0, 0};
    }

    void extended() {
        CpuidRegs& leaf0 = row(0x8000'0000);
        leaf0 = allowed(0x8000'0000);
        leaf0.eax = policy_.max_extended_;

        CpuidRegs& leaf1 = row(0x8000'0001);
        leaf1 = allowed(0x8000'0001);
        if (!has_avx()) leaf1.ecx &= ~leaf80000001::needs_avx;
        if (!facts_.rdtscp) leaf1.edx &= ~leaf80000001::RDTSCP;
        if (!is_intel() && facts_.vcpu_count > 1) leaf1.ecx |= leaf80000001::CMP_LEGACY;
        if (slot(0x8000'001e).kind != Kind::AmdTopology) leaf1.ecx &= ~leaf80000001::TOPOLOGY_EXTENSIONS;

        for (u32 leaf = 0x8000'0002; leaf <= 0x8000'0006; ++leaf)
            row(leaf) = allowed(leaf);
        row(0x8000'0007).edx = facts_.invariant_tsc ? mask(8) : 0;

        CpuidRegs& leaf8 = row(0x8000'0008);
        leaf8 = allowed(0x8000'0008);
        u32 const host_bits = host(0x8000'0008).eax & 0xff;
        physical_bits_ = static_cast<u8>(host_bits < 32 || host_bits > 52 ? 36 : host_bits);
        leaf8.eax = physical_bits_ | 48U << 8;
        if (!is_intel()) leaf8.ecx = ((facts_.vcpu_count - 1) & 0xff) | bits_for(facts_.vcpu_count) << 12;

        for (u32 leaf : {0x8000'0019U, 0x8000'001aU, 0x8000'0021U})
            if (!is_intel() && is_offered(leaf)) row(leaf) = allowed(leaf);
    }

    void rules() {
        CpuidRegs const features = policy_.rows_[slot(1).row];
        CpuidRegs const structured = policy_.rows_[slot(7).row];
        CpuidRegs const extended = policy_.rows_[slot(0x8000'0001).row];
        ControlRegisterRules& out = policy_.rules_;
        auto allow = [](u64& where, bool when, u64 bits) {
            if (when) where |= bits;
        };
        allow(out.cr4, (features.edx & mask(1)) != 0, cr4::VME | cr4::PVI);
        allow(out.cr4, (features.edx & mask(2)) != 0, cr4::DE);
        allow(out.cr4, (features.edx & mask(3)) != 0, cr4::PSE);
        allow(out.cr4, (features.edx & mask(4)) != 0, cr4::TSD);
        allow(out.cr4, (features.edx & mask(6)) != 0, cr4::PAE);
        allow(out.cr4, (features.edx & mask(7)) != 0, cr4::MCE);
        allow(out.cr4, (features.edx & mask(13)) != 0, cr4::PGE);
        allow(out.cr4, (features.edx & mask(24)) != 0, cr4::OSFXSR);
        allow(out.cr4, (features.edx & mask(25)) != 0, cr4::OSXMMEXCPT);
        allow(out.cr4, true, cr4::PCE); // exists without CPUID bit; RDPMC itself is the backend's to refuse
        allow(out.cr4, (features.ecx & leaf1::PCID) != 0, cr4::PCIDE);
        allow(out.cr4, (features.ecx & leaf1::XSAVE) != 0, cr4::OSXSAVE);
        allow(out.cr4, (structured.ebx & mask(0)) != 0, cr4::FSGSBASE);
        allow(out.cr4, (structured.ebx & mask(7)) != 0, cr4::SMEP);
        allow(out.cr4, (structured.ebx & mask(20)) != 0, cr4::SMAP);
        allow(out.cr4, (structured.ecx & leaf7::UMIP) != 0, cr4::UMIP);
        allow(out.cr4, (structured.ecx & leaf7::PKU) != 0, cr4::PKE);
        allow(out.efer, (extended.edx & leaf80000001::SYSCALL) != 0, efer::SCE);
        allow(out.efer, (extended.edx & leaf80000001::LONG_MODE) != 0, efer::LME | efer::LMA);
        allow(out.efer, (extended.edx & leaf80000001::NX) != 0, efer::NXE);
        out.xcr0 = xcr0_;
        out.xss = xss_;
        out.physical_bits = physical_bits_;
        policy_.tsc_aux_ = (extended.edx & leaf80000001::RDTSCP) != 0 || (structured.ecx & leaf7::RDPID) != 0;
    }

    CpuidPolicy& policy_;
    CpuidReader host_;
    PlatformFacts const& facts_;
    u32 host_basic_ = 0;
    u32 host_extended_ = 0;
    u64 xcr0_ = 0;
    u64 xss_ = 0;
    u32 used_ = 1; // row 0 stays zero
    u8 physical_bits_ = 36;
};

CpuidPolicy CpuidPolicy::create(CpuidReader host, PlatformFacts const& facts) {
    CpuidPolicy policy;
    Builder(policy, host, facts).build();
    return policy;
}

} // namespace vm
