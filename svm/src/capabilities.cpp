// SPDX-License-Identifier: MIT
#include <algorithm>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>
#include <svm/capabilities.hpp>
#include <vm/feature_words.hpp>

namespace svm {
namespace {

namespace x86 = lib::x86;
using lib::u32;
using lib::u64;
using lib::u8;

// [amd/vol2] 15.30.1
constexpr u32 VM_CR = 0xc001'0114;
constexpr u64 vm_cr_lock = lib::bit(3), vm_cr_svm_disabled = lib::bit(4);

// CPUID 8000_000Ah EDX, [amd/vol3] E.4.9
struct Feature {
    u32 bit;
    std::string_view name;
};
constexpr u32 nested_paging = 0, next_rip = 3, clean_bits = 5, flush_by_asid = 6, decode_assists = 7, pause_filter = 10,
              pause_threshold = 12, avic = 13, x2avic = 18;
constexpr Feature unused[] = {{1, "LBR"},   {4, "TSC-ratio"}, {15, "VMSAVE"},
                              {16, "VGIF"}, {25, "VNMI"},     {30, "idle-HLT"}};

constexpr vm::FeatureWord<Disabled> words[] = {
    {"next-rip", &Disabled::next_rip},
    {"decode-assists", &Disabled::decode_assists},
    {"flush-by-asid", &Disabled::flush_by_asid},
    {"clean-bits", &Disabled::clean_bits},
    {"large-pages", &Disabled::large_pages},
    {"pause-filter", &Disabled::pause_filter},
    {"avic", &Disabled::avic},
    {"x2avic", &Disabled::x2avic},
};

constexpr bool has(u32 word, u32 number) { return (word >> number & 1) != 0; }

// The CPU is QEMU's TCG: its signature, "TCGTCGTCGTCG".
bool is_tcg() {
    constexpr u32 hypervisor = 31, signature_leaf = 0x4000'0000;
    if (!has(x86::cpuid(1).ecx, hypervisor)) return false;
    auto const leaf = x86::cpuid(signature_leaf);
    return leaf.ebx == 0x5447'4354 && leaf.ecx == 0x4354'4743 && leaf.edx == 0x4743'5447;
}

// AVIC of Zen 1 and Zen 2 (and their sisters of family 18h) may go on taking a vCPU for running that has just stopped:
// it sends the interrupt, and nobody is told to run the vCPU (erratum 1235). There it is never told that one runs.
bool notices_stopped_vcpus() {
    u32 const signature = x86::cpuid(1).eax;
    u32 const base_family = signature >> 8 & 0xf;
    u32 const family = base_family == 0xf ? base_family + (signature >> 20 & 0xff) : base_family;
    return family != 0x17 && family != 0x18;
}

} // namespace

bool Disabled::parse(std::string_view text) { return vm::set_features(*this, words, text); }
std::string_view Disabled::known_words() {
    auto const& text = vm::feature_text<words>;
    return {text.begin(), text.size()};
}

// Without the lock, SVMDIS is a bit like any other; with it, a write has no effect. [amd/vol2] 15.30.1
bool unlock_svm() {
    u64 control = 0;
    if (!x86::rdmsr_safe(VM_CR, control) || (control & vm_cr_svm_disabled) == 0) return true;
    return x86::wrmsr_safe(VM_CR, control & ~vm_cr_svm_disabled) && x86::rdmsr_safe(VM_CR, control) &&
           (control & vm_cr_svm_disabled) == 0;
}

std::expected<Capabilities, Refusal> read_capabilities(Disabled const& disabled) {
    constexpr u32 svm_leaf = 0x8000'000a, svm_bit = 2;
    auto const extended = x86::cpuid(0x8000'0001);
    if (!has(extended.ecx, svm_bit) || x86::cpuid(0x8000'0000).eax < svm_leaf)
        return std::unexpected(Refusal{"this AMD CPU has no AMD-V (SVM), or it is hidden from this machine",
                                       "use a CPU with AMD-V; in a virtual machine turn on nested virtualization"});
    u64 control = 0;
    if (!x86::rdmsr_safe(VM_CR, control)) control = 0; // some emulators have SVM without the register that turns it off
    if ((control & vm_cr_svm_disabled) != 0 && (control & vm_cr_lock) != 0) return std::unexpected(locked_off);
    auto const svm = x86::cpuid(svm_leaf);
    if (!has(svm.edx, nested_paging))
        return std::unexpected(
            Refusal{"this CPU's AMD-V has no nested paging", "use a CPU with it (Barcelona or newer)"});
    constexpr u32 fewest_asids = 2; // 0 is the host's
    if (svm.ebx < fewest_asids)
        return std::unexpected(Refusal{"this CPU's AMD-V has no address-space identifiers for guests",
                                       "the virtual machine that this runs in is set up wrongly: update it"});
    constexpr u32 pages_1g = 26, rdtscp = 27;
    bool const has_avic =
        has(svm.edx, avic) && has(svm.edx, flush_by_asid) && !disabled.avic && !disabled.flush_by_asid;
    return Capabilities{.features = svm.edx,
                        .asids = svm.ebx,
                        .revision = static_cast<u8>(svm.eax),
                        .has_next_rip = has(svm.edx, next_rip) && !disabled.next_rip,
                        .has_decode_assists = has(svm.edx, decode_assists) && !disabled.decode_assists,
                        .has_flush_by_asid = has(svm.edx, flush_by_asid) && !disabled.flush_by_asid,
                        .has_clean_bits = has(svm.edx, clean_bits) && !disabled.clean_bits,
                        .has_pause_filter = has(svm.edx, pause_filter) && !disabled.pause_filter,
                        .has_pause_threshold = has(svm.edx, pause_threshold) && !disabled.pause_filter,
                        .has_pages_2m = !disabled.large_pages,
                        .has_pages_1g = has(extended.edx, pages_1g) && !disabled.large_pages,
                        .has_tsc_aux = has(extended.edx, rdtscp),
                        .has_avic = has_avic,
                        .has_x2avic = has_avic && has(svm.edx, x2avic) && !disabled.x2avic,
                        .has_avic_running = has_avic && notices_stopped_vcpus(),
                        .quirks = {.repeats_injected_interrupts = is_tcg(), .sysenter_sets_cs_l_and_d = is_tcg()}};
}

void Quirks::describe(lib::TextSink& sink) const {
    if (repeats_injected_interrupts) lib::format(sink, "; QEMU's fault: injected interrupts come twice, avoided");
    if (sysenter_sets_cs_l_and_d) lib::format(sink, "; QEMU's fault: SYSENTER sets CS.L and CS.D, repaired");
}

void Capabilities::describe(lib::TextSink& sink) const {
    auto const word = [&](bool used, std::string_view name) {
        if (used) lib::format(sink, " {}", name);
    };
    lib::format(sink, "NPT, {} ASIDs; optional:", asids);
    word(has_next_rip, "next-RIP");
    word(has_decode_assists, "decode-assists");
    word(has_flush_by_asid, "flush-by-ASID");
    word(has_clean_bits, "clean-bits");
    word(has_pause_filter, "pause-filter");
    word(has_pages_2m, "2M-pages");
    word(has_pages_1g, "1G-pages");
    word(has_tsc_aux, "RDTSCP");
    word(has_avic, "AVIC");
    word(has_x2avic, "x2AVIC");
    quirks.describe(sink);
    if (!std::ranges::any_of(unused, [&](Feature const& feature) { return has(features, feature.bit); })) return;
    lib::format(sink, "; not used:");
    for (Feature const& feature : unused)
        word(has(features, feature.bit), feature.name);
}

} // namespace svm
