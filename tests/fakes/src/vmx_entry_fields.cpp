// SPDX-License-Identifier: MIT
// Which VMCS fields a VM entry uses under the controls in force, by the manual's numbers and not by the names of the
// code under test. [intel/vol3] 25.4 to 25.8, 27.2, 27.3, appendix B
#include <fakes/vmx_model.hpp>

#include <cstdio>

namespace fakes {
namespace {

constexpr u64 PIN = 0x4000, CPU = 0x4002, CPU2 = 0x401e, EXIT = 0x400c, ENTRY = 0x4012, EVENT = 0x4016;
constexpr u64 GUEST_CR0 = 0x6800, GUEST_CR4 = 0x6804;

// Always: control words, exception bitmap, #PF mask and match, CR3-target count, MSR counts, event; masks and shadows
// of CR0 and CR4.
constexpr u64 always[] = {PIN, CPU, 0x4004, 0x4006, 0x4008, 0x400a, EXIT, 0x400e, 0x4010, ENTRY, 0x4014, EVENT, 0x6000,
                          0x6002, 0x6004, 0x6006,
                          // Guest: selectors, link pointer, limits, rights, interruptibility, activity, SYSENTER_CS
                          0x0800, 0x0802, 0x0804, 0x0806, 0x0808, 0x080a, 0x080c, 0x080e, 0x2800, 0x4800, 0x4802,
                          0x4804, 0x4806, 0x4808, 0x480a, 0x480c, 0x480e, 0x4810, 0x4812, 0x4814, 0x4816, 0x4818,
                          0x481a, 0x481c, 0x481e, 0x4820, 0x4822, 0x4824, 0x4826, 0x482a,
                          // CR0, CR3, CR4, bases, RSP, RIP, RFLAGS, pending debug, SYSENTER_ESP and _EIP
                          GUEST_CR0, 0x6802, GUEST_CR4, 0x6806, 0x6808, 0x680a, 0x680c, 0x680e, 0x6810, 0x6812, 0x6814,
                          0x6816, 0x6818, 0x681c, 0x681e, 0x6820, 0x6822, 0x6824, 0x6826,
                          // Host: selectors, SYSENTER_CS, CR0, CR3, CR4, bases, SYSENTER_ESP and _EIP, RSP, RIP
                          0x0c00, 0x0c02, 0x0c04, 0x0c06, 0x0c08, 0x0c0a, 0x0c0c, 0x4c00, 0x6c00, 0x6c02, 0x6c04,
                          0x6c06, 0x6c08, 0x6c0a, 0x6c0c, 0x6c0e, 0x6c10, 0x6c12, 0x6c14, 0x6c16};

struct Use {
    u64 word; // the control word with
    u32 bit;  // the control that makes the CPU use
    std::vector<u64> fields;
};
// Controls that name no field, or whose fields this model need not know, are not here.
Use const uses[] = {
    {PIN, 6, {0x482e}},                                  // preemption timer
    {PIN, 7, {0x0002, 0x2016}},                          // posted interrupts: vector, descriptor
    {CPU, 3, {0x2010}},                                  // TSC offset
    {CPU, 21, {0x2012, 0x401c}},                         // TPR shadow: virtual-APIC address, threshold
    {CPU, 25, {0x2000, 0x2002}},                         // I/O bitmaps
    {CPU, 28, {0x2004}},                                 // MSR bitmaps
    {CPU2, 0, {0x2014}},                                 // APIC-access address
    {CPU2, 1, {0x201a}},                                 // EPT pointer
    {CPU2, 5, {0x0000}},                                 // VPID
    {CPU2, 9, {0x0810, 0x201c, 0x201e, 0x2020, 0x2022}}, // interrupt status, EOI-exit bitmaps
    {CPU2, 10, {0x4020, 0x4022}},                        // PAUSE-loop exiting
    {CPU2, 13, {0x2018}},                                // VM functions
    {CPU2, 14, {0x2026, 0x2028}},                        // VMCS shadowing
    {CPU2, 17, {0x200e}},                                // page-modification log
    {CPU2, 18, {0x202a}},                                // virtualization exceptions
    {CPU2, 20, {0x202c}},                                // XSS-exiting bitmap
    {CPU2, 25, {0x2032}},                                // TSC multiplier
    {EXIT, 12, {0x2c04}},                                // IA32_PERF_GLOBAL_CTRL of the host
    {EXIT, 19, {0x2c00}},                                // its PAT
    {EXIT, 21, {0x2c02}},                                // its EFER
    {ENTRY, 2, {0x2802, 0x681a}},                        // debug controls: DEBUGCTL, DR7
    {ENTRY, 13, {0x2808}},                               // IA32_PERF_GLOBAL_CTRL
    {ENTRY, 14, {0x2804}},                               // PAT
    {ENTRY, 15, {0x2806}},                               // EFER
    {ENTRY, 16, {0x2812}},                               // BNDCFGS
};
constexpr u64 pdptes[] = {0x280a, 0x280c, 0x280e, 0x2810};
// Exit qualification and the guest's addresses, interruption and vectoring information, instruction length and
// information
constexpr u64 exit_information[] = {0x2400, 0x4404, 0x4406, 0x4408, 0x440a, 0x440c, 0x440e, 0x6400, 0x640a};

} // namespace

std::string field_name(u64 field) {
    char text[20];
    std::snprintf(text, sizeof(text), "%#llx", static_cast<unsigned long long>(field));
    return text;
}

bool VmxModel::is_written(u64 field) const {
    if (!current) return false;
    auto const found = regions_.find(*current);
    return found != regions_.end() && found->second.fields.contains(field);
}

std::optional<u64> VmxModel::unwritten_field() const {
    for (u64 const field : always)
        if (!is_written(field)) return field;
    bool const has_cpu2 = (peek(CPU) >> 31 & 1) != 0;
    if (has_cpu2 && !is_written(CPU2)) return CPU2;
    for (Use const& use : uses) {
        if ((use.word == CPU2 && !has_cpu2) || (peek(use.word) >> use.bit & 1) == 0) continue;
        for (u64 const field : use.fields)
            if (!is_written(field)) return field;
    }
    // With EPT the four entries of PAE paging are loaded from here. [intel/vol3] 27.3.1.6
    constexpr u32 paging = 31, pae = 5, ia32e = 9, ept = 1;
    bool const is_pae =
        (peek(GUEST_CR0) >> paging & 1) != 0 && (peek(GUEST_CR4) >> pae & 1) != 0 && (peek(ENTRY) >> ia32e & 1) == 0;
    if (is_pae && has_cpu2 && (peek(CPU2) >> ept & 1) != 0)
        for (u64 const field : pdptes)
            if (!is_written(field)) return field;
    u64 const event = peek(EVENT);
    constexpr u64 valid = 1U << 31, error_code = 1U << 11, error_code_field = 0x4018, length_field = 0x401a;
    u64 const type = event >> 8 & 7;
    bool const is_software = type >= 4 && type <= 6;
    if ((event & valid) != 0 && (event & error_code) != 0 && !is_written(error_code_field)) return error_code_field;
    if ((event & valid) != 0 && is_software && !is_written(length_field)) return length_field;
    return {};
}

void VmxModel::scramble_exit_information() {
    for (u64 const field : exit_information)
        if (!is_written(field)) poke(field, unwritten_pattern);
}

} // namespace fakes
