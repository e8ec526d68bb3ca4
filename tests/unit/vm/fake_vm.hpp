// SPDX-License-Identifier: MIT
#pragma once
// A vCPU whose registers are plain values, its backend and its platform: what the vendor-neutral code is tested with.
#include "support/device_memory.hpp"
#include "support/machine_memory.hpp"

#include <array>
#include <cstring>
#include <fakes/cpu.hpp>
#include <functional>
#include <kernel/cpus.hpp>
#include <map>
#include <string>
#include <vm/vm.hpp>

namespace fake {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

class Vcpu final : public vm::Vcpu {
public:
    Vcpu(vm::Vm& machine, u32 number, vm::ApicPage& page) : vm::Vcpu(machine, number, page), page_(page) {}
    ~Vcpu() override { kernel::free_frames(kernel::virt_to_phys(&page_), 0); }
    kernel::RunResult leaves_by = kernel::RunResult::Work;
    void unload() override {}
    u64 rip() override { return rip_; }
    void set_rip(u64 value) override { rip_ = value; }
    u64 rflags() override { return rflags_; }
    void set_rflags(u64 value) override { rflags_ = value; }
    void fetch_gprs() override {}
    void store_gprs() override {}
    vm::Vector vector(unsigned number) override { return vectors.at(number); }
    void set_vector(unsigned number, vm::Vector const& value) override { vectors.at(number) = value; }
    u64 cr0() override { return cr0_; }
    u64 cr3() override { return cr3_; }
    u64 cr4() override { return cr4_; }
    u64 efer() override { return efer_; }
    void set_cr0(u64 value) override { cr0_ = value; }
    void set_cr3(u64 value) override { cr3_ = value; }
    void set_cr4(u64 value) override { cr4_ = value; }
    void set_efer(u64 value) override { efer_ = value; }
    vm::Segment segment(vm::SegmentName name) override { return segments_[static_cast<unsigned>(name)]; }
    void set_segment(vm::SegmentName name, vm::Segment const& value) override {
        segments_[static_cast<unsigned>(name)] = value;
        if (on_segment) on_segment();
    }
    vm::TablePointer gdt() override { return gdt_; }
    void set_gdt(vm::TablePointer value) override { gdt_ = value; }
    void set_idt(vm::TablePointer) override {}
    u64 dr7() override { return dr7_; }
    void set_dr7(u64 value) override { dr7_ = value; }
    u64 dr6() override { return dr6_; }
    void set_dr6(u64 value) override { dr6_ = value; }
    u32 privilege_level() override { return level; }
    bool is_64_bit() override {
        return (efer() & vm::efer::LMA) != 0 && (segment(vm::SegmentName::Cs).attributes & vm::segment::l_bit) != 0;
    }
    bool advance(u8 length) override {
        rip_ += length;
        return false;
    }
    void set_tsc_offset(u64 offset) override { tsc_offset_ = offset; }
    u64 read_hardware(vm::HardwareMsr which) override { return hardware[which]; }
    void write_hardware(vm::HardwareMsr which, u64 value) override { hardware[which] = value; }
    void print_state(lib::TextSink& sink) override { sink.write(state_text); }
    std::string state_text;
    vm::Exception const& exception() const { return pending_exception_; }
    u32 requests() const { return requests_.load(); }

    u32 level = 0;
    std::array<vm::Vector, 16> vectors{};
    std::function<void()> on_segment; // called when one is set
    std::map<vm::HardwareMsr, u64> hardware;

private:
    void run_guest() override {
        take_requests();
        leave(leaves_by);
    }
    void inject_exception(vm::Exception const&) override {}
    void save_backend(vm::VcpuState&) override {}
    void restore_backend(vm::VcpuState const&) override {}
    vm::FpuState& fpu_state() override { return fpu_; }

    u64 rip_ = 0, rflags_ = 2, cr0_ = 0, cr3_ = 0, cr4_ = 0, efer_ = 0;
    u64 dr6_ = 0xffff'0ff0, dr7_ = 0x400;
    vm::TablePointer gdt_{};
    std::array<vm::Segment, 8> segments_{};
    vm::ApicPage& page_;
    vm::FpuState fpu_;
};

class Space final : public vm::AddressSpace {
public:
    lib::Result<void> map(vm::GuestMapping const&) override { return {}; }
    lib::Result<void> unmap(vm::GuestPhys, u64) override { return {}; }
    u64 table_bytes() const override { return 0; }
};

class Backend final : public vm::Backend {
public:
    std::string_view name() const override { return "fake"; }
    void describe(lib::TextSink&) const override {}
    std::expected<void, vm::Refusal> enable_on_this_cpu() override { return {}; }
    void disable_on_this_cpu() override {}
    bool has_tsc_scaling() const override { return tsc_scaling; }
    bool tsc_scaling = true;
    void constrain(vm::PlatformFacts&) const override {}
    lib::Result<kernel::Own<vm::AddressSpace>> create_address_space() override {
        return kernel::Own<vm::AddressSpace>(new Space);
    }
    lib::Result<kernel::Own<vm::Vcpu>> create_vcpu(vm::Vm& machine, u32 id) override {
        auto const page = TRY(kernel::allocate_zeroed_frame());
        return kernel::Own<vm::Vcpu>(new Vcpu(machine, id, *kernel::phys_to_virt<vm::ApicPage>(page)));
    }
};

class Platform final : public support::DeviceMemory {
public:
    unsigned stops = 0; // of vCPUs
    u64 port_in(u16, u8) override { return 0x1234'5678'9abc'def0; }
    void port_out(u16, u8, u64) override {}
    void port_string(u16, u8, bool is_in, std::span<u8> bytes) override {
        if (is_in) std::memset(bytes.data(), 0xf0, bytes.size());
    }
    bool has_pic_interrupt() override { return false; }
    u8 acknowledge_pic() override { return 0; }
    void end_of_interrupt(u8) override {}
    std::array<u64, 4> eoi_vectors() override { return {}; }
    void vcpu_stopped() override { stops++; }
};

} // namespace fake
