// SPDX-License-Identifier: MIT
#pragma once
// A local APIC of its own, with the accesses that a guest makes.
#include "vm/fake_apic_bus.hpp"

#include <gtest/gtest.h>
#include <memory>

struct TestApic {
    static constexpr vm::u64 base_address = 0xfee0'0000;
    FakeApicBus bus;
    std::unique_ptr<vm::ApicPage> page = std::make_unique<vm::ApicPage>();
    vm::LocalApic apic;

    explicit TestApic(vm::u32 id = 0) : apic(config(id), *page, bus) {}
    static vm::LocalApicConfig config(vm::u32 id) {
        vm::LocalApicConfig result;
        result.id = id;
        result.is_bootstrap = id == 0;
        result.physical_bits = 40;
        result.crystal = vm::crystal_of(1'000'000'000);
        return result;
    }
    void enable() { write(vm::apic_reg::SVR, 0x1ff); }
    void to_x2apic() { EXPECT_EQ(apic.write_base(base_address | 0xc00), vm::MsrResult::Done); }
    vm::u32 read(vm::u32 offset) { return static_cast<vm::u32>(apic.mmio_read(offset, 4)); }
    void write(vm::u32 offset, vm::u32 value) { apic.mmio_write(offset, 4, value); }
    vm::MsrResult wrmsr(vm::u32 offset, vm::u64 value) { return apic.write_x2apic(0x800 + offset / 16, value); }
    vm::MsrResult rdmsr(vm::u32 offset, vm::u64& value) { return apic.read_x2apic(0x800 + offset / 16, value); }
    vm::u64 rdmsr(vm::u32 offset) {
        vm::u64 value = 0xdead;
        EXPECT_EQ(rdmsr(offset, value), vm::MsrResult::Done) << std::hex << offset;
        return value;
    }
    vm::u32 errors() {
        write(vm::apic_reg::ESR, 0);
        return read(vm::apic_reg::ESR);
    }
};
