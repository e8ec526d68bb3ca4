// SPDX-License-Identifier: MIT
#include <check/file.hpp>
#include <check/machine_check.hpp>

#include <algorithm>
#include <cpuid.h>
#include <cstring>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

namespace check {
namespace {

constexpr u32 IA32_FEATURE_CONTROL = 0x3a, IA32_VMX_PROCBASED_CTLS = 0x482, IA32_VMX_PROCBASED_CTLS2 = 0x48b,
              VM_CR = 0xc001'0114;
constexpr u64 feature_control_lock = 1, feature_control_vmx = 4; // [intel/vol3] 24.7
constexpr u64 vm_cr_lock = 8, vm_cr_svm_disabled = 16;           // [amd/vol2] 15.30.1
constexpr u32 most_cpus = 512;

bool exists(char const* path) { return access(path, F_OK) == 0; }

Msr read_msr(u32 cpu, u32 index) {
    char path[64];
    snprintf(path, sizeof path, "/dev/cpu/%u/msr", cpu);
    int const file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return {};
    Msr msr;
    msr.is_known = pread(file, &msr.value, sizeof msr.value, index) == sizeof msr.value;
    close(file);
    return msr;
}

void read_cpuid(MachineFacts& facts) {
    u32 a = 0, b = 0, c = 0, d = 0;
    __cpuid(0, a, b, c, d);
    std::memcpy(facts.vendor.data(), &b, 4);
    std::memcpy(facts.vendor.data() + 4, &d, 4);
    std::memcpy(facts.vendor.data() + 8, &c, 4);
    __cpuid(1, a, b, c, d);
    facts.has_vmx = (c >> 5 & 1U) != 0;
    facts.is_virtual = (c >> 31 & 1U) != 0;
    __cpuid(0x8000'0000, a, b, c, d);
    u32 const most = a;
    if (most >= 0x8000'0001) {
        __cpuid(0x8000'0001, a, b, c, d);
        facts.has_long_mode = (d >> 29 & 1U) != 0;
        facts.has_svm = (c >> 2 & 1U) != 0;
    }
    if (facts.has_svm && most >= 0x8000'000a) {
        __cpuid(0x8000'000a, a, b, c, d);
        facts.has_nested_paging = (d & 1U) != 0;
    }
}

void read_registers(MachineFacts& facts) {
    bool const is_intel = facts.has_vmx;
    for (u32 cpu = 0; cpu < most_cpus; cpu++) {
        Msr const control = read_msr(cpu, is_intel ? IA32_FEATURE_CONTROL : VM_CR);
        if (!control.is_known) continue;
        facts.are_registers_known = true;
        ++facts.cpus;
        bool const is_locked = (control.value & (is_intel ? feature_control_lock : vm_cr_lock)) != 0;
        // Without the lock Mullion turns VT-x on itself.
        bool const is_off = is_intel ? is_locked && (control.value & feature_control_vmx) == 0
                                     : (control.value & vm_cr_svm_disabled) != 0;
        facts.cpus_turned_off += is_off ? 1 : 0;
        facts.cpus_locked_off += is_off && is_locked ? 1 : 0;
    }
    if (!is_intel) return;
    facts.processor_controls = read_msr(0, IA32_VMX_PROCBASED_CTLS);
    facts.secondary_controls = read_msr(0, IA32_VMX_PROCBASED_CTLS2);
}

// Linux' own list of what VT-x has: "vmx flags : ... ept ... unrestricted_guest".
void read_cpuinfo(MachineFacts& facts) {
    File file;
    if (!file.read("/proc/cpuinfo")) return;
    auto const text = file.text();
    auto const at = text.find("\nvmx flags");
    if (at == std::string_view::npos) return;
    auto const line = text.substr(at + 1, text.find('\n', at + 1) - at - 1);
    auto const has = [&](std::string_view word) {
        return line.find(word) != std::string_view::npos ? Answer::Yes : Answer::No;
    };
    facts.ept = has(" ept ");
    facts.unrestricted_guest = has(" unrestricted_guest");
}

u64 memory_size() {
    File file;
    if (!file.read("/proc/meminfo")) return 0;
    constexpr std::string_view word = "MemTotal:";
    auto const at = file.text().find(word);
    u64 kilobytes = 0;
    if (at == std::string_view::npos) return 0;
    for (char const c : file.text().substr(at + word.size())) {
        if (c == '\n') break;
        if (c >= '0' && c <= '9') kilobytes = kilobytes * 10 + static_cast<u64>(c - '0');
    }
    return kilobytes * lib::KiB;
}

// Linux makes a ttyS for every port that may be there; one without a UART has type 0.
bool has_uart(std::string_view port) {
    for (u32 i = 0; i < 32; i++) {
        char path[64];
        File found, type;
        snprintf(path, sizeof path, "/sys/class/tty/ttyS%u/port", i);
        if (!found.read(path) || !found.text().starts_with(port)) continue;
        snprintf(path, sizeof path, "/sys/class/tty/ttyS%u/type", i);
        return type.read(path) && !type.text().starts_with("0");
    }
    return false;
}

Answer secure_boot() {
    File file;
    if (!file.read("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")) return Answer::Unknown;
    // Four bytes of attributes, then the value. [uefi] 3.3
    return file.bytes().size() >= 5 && file.bytes()[4] == 1 ? Answer::Yes : Answer::No;
}

} // namespace

MachineFacts gather_machine_facts() {
    MachineFacts facts;
    read_cpuid(facts);
    if (facts.has_vmx || facts.has_svm) read_registers(facts);
    if (facts.has_vmx) read_cpuinfo(facts);
    facts.has_acpi_madt = exists("/sys/firmware/acpi/tables/APIC");
    facts.memory = memory_size();
    facts.has_com1 = has_uart("0x3F8");
    facts.has_com2 = has_uart("0x2F8");
    facts.is_uefi = exists("/sys/firmware/efi");
    facts.secure_boot = secure_boot();
    facts.grub = exists(facts.is_uefi ? "/boot/grub/x86_64-efi/multiboot2.mod" : "/boot/grub/i386-pc/multiboot2.mod") ||
                         exists(facts.is_uefi ? "/usr/lib/grub/x86_64-efi/multiboot2.mod"
                                              : "/usr/lib/grub/i386-pc/multiboot2.mod")
                     ? Answer::Yes
                     : Answer::No;
    return facts;
}

} // namespace check
