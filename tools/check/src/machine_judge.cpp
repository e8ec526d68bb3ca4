// SPDX-License-Identifier: MIT
#include <check/machine_check.hpp>

namespace check {
namespace {

constexpr u64 least_memory = 32 * lib::MiB;
constexpr u64 secondary_controls_allowed = u64{1} << (32 + 31);                            // [intel/vol3] A.3.2
constexpr u64 ept_allowed = u64{1} << (32 + 1), unrestricted_allowed = u64{1} << (32 + 7); // [intel/vol3] A.3.3

class Report {
public:
    explicit Report(lib::TextSink& sink) : sink_(sink) {}
    template <typename... Args> void good(std::string_view format, Args const&... args) {
        line("ok       ", format, args...);
    }
    template <typename... Args> void note(std::string_view format, Args const&... args) {
        line("note     ", format, args...);
    }
    template <typename... Args> void bad(std::string_view format, Args const&... args) {
        ++bad_;
        line("MISSING  ", format, args...);
    }
    void advice(std::string_view text) { lib::format(sink_, "         {}\n", text); }
    u32 count() const { return bad_; }

private:
    template <typename... Args> void line(std::string_view head, std::string_view format, Args const&... args) {
        sink_.write(head);
        lib::format(sink_, format, args...);
        sink_.write("\n");
    }
    lib::TextSink& sink_;
    u32 bad_ = 0;
};

Answer allows(Msr const& msr, u64 bit) {
    if (!msr.is_known) return Answer::Unknown;
    return (msr.value & bit) != 0 ? Answer::Yes : Answer::No;
}

void judge_turned_on(MachineFacts const& facts, Report& report, std::string_view name, std::string_view menu) {
    if (!facts.are_registers_known) {
        report.note("{}: this CPU has it; whether the firmware left it on cannot be read here", name);
        report.advice("as root, with the kernel module msr loaded (modprobe msr), this program can tell");
    } else if (facts.cpus_turned_off == 0) {
        report.good("{}: the firmware left it on for all {} CPUs", name, facts.cpus);
    } else if (facts.cpus_turned_off == facts.cpus) {
        report.bad("{}: the firmware turned it off{}", name, facts.cpus_locked_off != 0 ? " and locked it" : "");
        report.advice(menu);
    } else {
        report.note("{}: the firmware turned it off for {} of {} CPUs, which Mullion cannot use", name,
                    facts.cpus_turned_off, facts.cpus);
        report.advice("update the firmware");
    }
}

void judge_intel(MachineFacts const& facts, Report& report) {
    judge_turned_on(
        facts, report, "VT-x",
        "turn on \"Intel Virtualization Technology\" in the firmware setup, then switch the power off and on");
    bool const has_secondary = allows(facts.processor_controls, secondary_controls_allowed) != Answer::No;
    Answer const ept = facts.secondary_controls.is_known ? allows(facts.secondary_controls, ept_allowed)
                       : has_secondary                   ? facts.ept
                                                         : Answer::No;
    Answer const unrestricted = facts.secondary_controls.is_known
                                    ? allows(facts.secondary_controls, unrestricted_allowed)
                                : has_secondary ? facts.unrestricted_guest
                                                : Answer::No;
    if (ept == Answer::Unknown)
        report.note("EPT: cannot be read here; CPUs since Nehalem have it");
    else if (ept == Answer::Yes)
        report.good("EPT");
    else
        report.bad("EPT: this CPU has none; use one since Westmere (2010)");
    if (unrestricted == Answer::Unknown)
        report.note("unrestricted guest: cannot be read here; CPUs since Westmere have it");
    else if (unrestricted == Answer::Yes)
        report.good("unrestricted guest");
    else
        report.bad("unrestricted guest: this CPU has none; use one since Westmere (2010)");
}

void judge_amd(MachineFacts const& facts, Report& report) {
    judge_turned_on(facts, report, "AMD-V",
                    "turn on \"SVM Mode\" (or \"AMD-V\") in the firmware setup, then switch the power off and on");
    if (facts.has_nested_paging)
        report.good("nested paging");
    else
        report.bad("nested paging: this CPU has none; use one since Barcelona (2007)");
}

void judge_cpu(MachineFacts const& facts, Report& report) {
    std::string_view const vendor(facts.vendor.data(), facts.vendor.size());
    bool const is_intel = vendor == "GenuineIntel", is_amd = vendor == "AuthenticAMD" || vendor == "HygonGenuine";
    if (!facts.has_long_mode || (!is_intel && !is_amd)) {
        report.bad("CPU: made by \"{}\"; Mullion needs a 64-bit one of Intel, AMD or Hygon", vendor);
    } else if (!(is_intel ? facts.has_vmx : facts.has_svm)) {
        report.bad("{}: this CPU has none, or it is hidden", is_intel ? "VT-x" : "AMD-V");
        report.advice(facts.is_virtual
                          ? "this is a virtual machine: turn on nested virtualization on its host"
                          : "look for it in the firmware setup (Intel Virtualization Technology, SVM Mode)");
    } else {
        is_intel ? judge_intel(facts, report) : judge_amd(facts, report);
    }
}

} // namespace

u32 judge_machine(MachineFacts const& facts, lib::TextSink& sink) {
    Report report(sink);
    judge_cpu(facts, report);
    if (facts.is_virtual) report.note("this is a virtual machine itself: Mullion was not tested on such a host");
    if (facts.has_acpi_madt)
        report.good("ACPI");
    else
        report.bad("ACPI: no table MADT in /sys/firmware/acpi/tables; turn ACPI on in the firmware setup");
    if (facts.memory >= 2 * least_memory)
        report.good("memory: {} MiB; Mullion takes some 1 MiB of it and 4 KiB for each 2 MiB of a guest",
                    facts.memory / lib::MiB);
    else
        report.bad("memory: {} MiB; Mullion and one small guest need {} MiB", facts.memory / lib::MiB,
                   2 * least_memory / lib::MiB);
    if (facts.has_com1 || facts.has_com2) {
        report.good("UART: {}", facts.has_com1 ? "COM1 (0x3f8)" : "COM2 (0x2f8): give Mullion console=com2,screen");
    } else {
        report.bad("UART: neither COM1 (0x3f8) nor COM2 (0x2f8) answers, so no console of a guest and no monitor can "
                   "be reached");
        report.advice("turn on the serial port, or serial over LAN, in the firmware setup");
    }
    if (facts.secure_boot == Answer::Yes) {
        report.bad("Secure Boot: it is on, and GRUB boots no Multiboot kernel then");
        report.advice("turn Secure Boot off in the firmware setup");
    } else {
        report.good("firmware: {}{}", facts.is_uefi ? "UEFI" : "BIOS", facts.is_uefi ? ", Secure Boot is off" : "");
    }
    if (facts.grub == Answer::No)
        report.bad("GRUB: no multiboot2.mod in /boot/grub or /usr/lib/grub; install grub-pc-bin or grub-efi-amd64-bin");
    else
        report.good("GRUB");
    return report.count();
}

} // namespace check
