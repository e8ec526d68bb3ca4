// SPDX-License-Identifier: MIT
#pragma once
// An Intel machine on the fake CPU: capability MSRs as real ones have them, and a VM whose VM entries are played by the
// test. The entry refuses what the manual refuses, as far as this code has ever a chance to get it wrong.
#include "support/device_memory.hpp"
#include "support/machine_memory.hpp"

#include <fakes/cpu.hpp>
#include <functional>
#include <gtest/gtest.h>
#include <kernel/apic.hpp>
#include <kernel/cpus.hpp>
#include <kernel/traps.hpp>
#include <lib/x86/registers.hpp>
#include <vm/vm.hpp>
#include <vmx/backend.hpp>
#include <vmx/exit_reason.hpp>
#include <vmx/vcpu.hpp>

namespace intel_machine {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

// What must be 1 in the low half, what may be 1 in the high half. [intel/vol3] appendix A
constexpr u64 control(u32 must, u32 may) { return u64{may | must} << 32 | must; }

struct VmxMsrs {
    u64 basic, pin, cpu, exit, entry, misc, cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1, cpu2, ept_vpid;
    u64 true_pin, true_cpu, true_exit, true_entry;
};
// The server kind, with APIC virtualization.
constexpr VmxMsrs skylake() {
    return {.basic = 0x00da'0400'0000'0004,
            .pin = control(0x16, 0x7f & 0xff) | u64{0xff} << 32,
            .cpu = 0xfff9'fffe'0401'e172,
            .exit = 0x01ff'ffff'0003'6dff,
            .entry = 0x0003'ffff'0000'11ff,
            .misc = 0x7004'c1e7,
            .cr0_fixed0 = 0x8000'0021,
            .cr0_fixed1 = 0xffff'ffff,
            .cr4_fixed0 = 0x2000,
            .cr4_fixed1 = 0x0037'67ff,
            .cpu2 = control(0, 0x021b'fcff | 0x3ff | 1U << 20),
            .ept_vpid = 0x0f01'0673'4141,
            .true_pin = control(0x16, 0xff),
            .true_cpu = 0xfff9'fffe'0400'6172,
            .true_exit = 0x01ff'ffff'0003'6dfb,
            .true_entry = 0x0003'ffff'0000'11fb};
}
// The client kind: no APIC-register virtualization, interrupt delivery, posted interrupts, XSAVES.
constexpr VmxMsrs haswell() {
    VmxMsrs msrs = skylake();
    msrs.pin = control(0x16, 0x7f);
    msrs.true_pin = control(0x16, 0x7f);
    msrs.cpu2 = control(0, 0x0000'7cff & ~0x300U);
    return msrs;
}

inline void populate(fakes::Cpu& cpu, VmxMsrs const& msrs) {
    u64 const values[] = {
        msrs.basic,      msrs.pin,        msrs.cpu,        msrs.exit, msrs.entry, msrs.misc,     msrs.cr0_fixed0,
        msrs.cr0_fixed1, msrs.cr4_fixed0, msrs.cr4_fixed1, 0,         msrs.cpu2,  msrs.ept_vpid, msrs.true_pin,
        msrs.true_cpu,   msrs.true_exit,  msrs.true_entry};
    bool const has_true = (msrs.basic >> 55 & 1) != 0;
    for (u32 i = 0; i < std::size(values); i++)
        if (i != 10 && (has_true || i < 13)) cpu.populate_read_only_msr(0x480 + i, values[i]);
    cpu.populate_msr(lib::x86::IA32_FEATURE_CONTROL, 5);
    cpu.vmx.revision = static_cast<u32>(msrs.basic & 0x7fff'ffff);
    cpu.vmx.ept_vpid_capabilities = msrs.ept_vpid;
}

class Platform final : public support::DeviceMemory {
public:
    struct Port {
        u16 port;
        u8 size;
        u64 value;
        friend bool operator==(Port const&, Port const&) = default;
    };
    std::vector<Port> outs;
    u64 in_value = 0x1122'3344'5566'7788;
    bool pic = false;
    unsigned pic_acknowledged = 0;
    std::vector<u8> ended;
    std::array<u64, 4> eois{};

    u64 port_in(u16, u8) override { return in_value; }
    void port_out(u16 port, u8 size, u64 value) override { outs.push_back({port, size, value}); }
    void port_string(u16, u8, bool, std::span<u8>) override {}
    bool has_pic_interrupt() override { return pic; }
    u8 acknowledge_pic() override {
        pic = false;
        pic_acknowledged++;
        return 0x20;
    }
    void end_of_interrupt(u8 vector) override { ended.push_back(vector); }
    std::array<u64, 4> eoi_vectors() override { return eois; }
    void vcpu_stopped() override {}
};

// One VM exit to come.
struct Exit {
    u32 reason;
    u64 qualification = 0;
    u32 length = 2;
    std::function<void()> before = {}; // what the guest did until then: VMCS fields, registers
};

// What the fake vmx_run calls for each VM entry; returns 1 for VMfail.
using Entry = std::function<u64(std::array<u64, 16>& gprs, bool is_launched)>;
extern Entry on_entry;

// As VM entry leaves the VMCS, and the state of the guest while it runs.
struct EntryRecord {
    u32 interruption, error_code, length;
    u64 rip;
    bool is_launched;
};

class VmxMachine : public ::testing::Test {
public:
    fakes::Cpu cpu;
    Platform platform;

protected:
    explicit VmxMachine(VmxMsrs const& msrs = skylake());
    ~VmxMachine() override;
    void create(vmx::Disabled const& disabled = {});

    vmx::Vcpu& vcpu() { return static_cast<vmx::Vcpu&>(vm->vcpu(0)); }
    // Runs the guest: it leaves with `exits` one after the other, then for something that wants the CPU back.
    kernel::RunResult run(std::vector<Exit> exits);
    template <typename T, vmx::FieldAccess A> u64 field(vmx::Field<T, A> f) const { return cpu.vmx.peek(f.encoding); }
    template <typename T, vmx::FieldAccess A> void poke(vmx::Field<T, A> f, u64 value) {
        cpu.vmx.poke(f.encoding, value);
    }
    // The last field as an event, or 0 when nothing was injected.
    u32 injected(std::size_t entry) const { return entries.at(entry).interruption; }
    // A guest in 32-bit protected mode with interrupts on, whose APIC is software-enabled.
    void settle();
    void write_code(u64 at, std::initializer_list<u8> bytes);

    kernel::Own<vmx::Backend> backend;
    kernel::Own<vm::Vm> vm;
    std::vector<EntryRecord> entries;

private:
    u64 enter(std::array<u64, 16>& gprs, bool is_launched);
    bool is_entry_refused() const;
    std::vector<Exit> script_;
    std::size_t next_ = 0;
};

constexpr u32 event(u8 vector, u8 type) { return 1U << 31 | u32{type} << 8 | vector; }
constexpr u32 hardware_exception(u8 vector, bool has_code) { return event(vector, 3) | (has_code ? 1U << 11 : 0); }

} // namespace intel_machine
