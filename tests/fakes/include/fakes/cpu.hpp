// SPDX-License-Identifier: MIT
#pragma once
// The CPU and the wires that lib/x86/instructions.hpp reaches in hosted builds: strict and recording. It accepts what
// the manual accepts and fails what the manual fails. An instruction that would fault throws Fault; one that touches a
// port or an address nobody registered throws Unexpected. Both fail the test that did not ask for them.
//
// Not modelled: segmentation, paging, guest entry (tests poke exit information), and the contents of XSAVE areas.
#include <fakes/vmx_model.hpp>
#include <functional>
#include <lib/types.hpp>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace fakes {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

// An architectural exception raised by an instruction: vector 6 is #UD, 13 is #GP.
class Fault : public std::runtime_error {
public:
    Fault(unsigned vector, std::string const& why) : std::runtime_error(why), vector_(vector) {}
    unsigned vector() const { return vector_; }

private:
    unsigned vector_;
};

// The code under test touched something that this machine does not have.
class Unexpected : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

struct CpuidValues {
    u32 eax, ebx, ecx, edx;
};

struct PortDevice { // offset counts from the first port of the range; width is 1, 2 or 4 bytes
    std::function<u32(u16 offset, unsigned width)> in;
    std::function<void(u16 offset, unsigned width, u32 value)> out;
};

struct MmioDevice { // width is 1, 2, 4 or 8 bytes; widths outside `widths` (a mask of those numbers) fail the test
    std::function<u64(u64 offset, unsigned width)> load;
    std::function<void(u64 offset, unsigned width, u64 value)> store;
    unsigned widths = 1 | 2 | 4 | 8;
};

struct MsrWrite {
    u32 index;
    u64 value;
    friend bool operator==(MsrWrite const&, MsrWrite const&) = default;
};
struct PortWrite {
    u16 port;
    unsigned width;
    u32 value;
    friend bool operator==(PortWrite const&, PortWrite const&) = default;
};
struct MmioWrite {
    u64 address;
    unsigned width;
    u64 value;
    friend bool operator==(MmioWrite const&, MmioWrite const&) = default;
};
struct SvmInstruction {
    enum class Kind : u8 { Vmload, Vmsave } kind;
    u64 vmcb;
    friend bool operator==(SvmInstruction const&, SvmInstruction const&) = default;
};
struct StateInstruction {
    enum class Kind : u8 { Xsave, Xrstor, Xsaves, Xrstors, Fxsave, Fxrstor, ReplaceX87Pointers } kind;
    void const* area;
    u64 mask;
    friend bool operator==(StateInstruction const&, StateInstruction const&) = default;
};

// Exactly one is current per thread: the one constructed last.
class Cpu {
public:
    Cpu();
    ~Cpu();
    Cpu(Cpu const&) = delete;
    Cpu& operator=(Cpu const&) = delete;
    static Cpu& current();

    // --- What tests arrange and look at -------------------------------------------------------------------------
    void populate_msr(u32 index, u64 value) { msrs_[index].value = value; }
    void populate_read_only_msr(u32 index, u64 value) {
        msrs_[index].value = value;
        msrs_[index].is_read_only = true;
    }
    // Hooks see every access; an `on_write` that returns false makes WRMSR fault.
    void hook_msr(u32 index, std::function<u64()> on_read, std::function<bool(u64)> on_write = {});
    void remove_msr(u32 index) { msrs_.erase(index); }
    bool has_msr(u32 index) const { return msrs_.contains(index); }
    u64 peek_msr(u32 index) const;

    void set_cpuid(u32 leaf, CpuidValues values) { set_cpuid(leaf, any_subleaf, values); }
    void set_cpuid(u32 leaf, u32 subleaf, CpuidValues values) { cpuid_[{leaf, subleaf}] = values; }
    static constexpr u32 any_subleaf = 0xffff'ffff;

    void add_ports(u16 first, u16 count, PortDevice device);
    // Ports that keep what is written to them, byte by byte.
    void add_plain_ports(u16 first, u16 count, u8 initial = 0);
    void add_mmio(u64 base, u64 size, MmioDevice device);
    // Memory behind a window: returned so that tests can fill and read it. It lives as long as the CPU.
    std::vector<u8>& add_ram(u64 base, u64 size);

    std::vector<MsrWrite> msr_writes;
    bool are_stores_visible = false;  // a fence since the last IPI by x2APIC
    unsigned unfenced_icr_writes = 0; // their IPIs may arrive before the stores they tell of. [intel/vol3] 12.12.3
    std::vector<PortWrite> port_writes;
    std::vector<MmioWrite> mmio_writes;
    std::vector<SvmInstruction> svm_instructions;
    std::vector<StateInstruction> state_instructions;
    std::vector<u64> invlpg_addresses;
    std::map<u32, unsigned> rdmsr_counts;

    u64 cr0 = 0x8000'0031;
    u64 cr2 = 0;
    u64 cr3 = 0;
    u64 cr4 = 0x20;
    u64 dr[8] = {0, 0, 0, 0, 0, 0, 0xffff'0ff0, 0x400};
    u64 xcr0 = 1;
    u32 pkru = 0;
    u64 tsc = 0;
    u64 tsc_step = 1; // added by every RDTSC
    std::function<u64()> on_rdtsc;
    std::function<bool(u64&)> on_rdrand;
    bool interrupts_enabled = false;
    bool global_interrupt_flag = true; // AMD's GIF
    unsigned hlt_count = 0;
    unsigned pause_count = 0;
    unsigned wbinvd_count = 0;
    unsigned interrupt_windows = 0; // STI, NOP, CLI
    std::function<void()> on_interrupt_window;
    std::function<void()> on_hlt; // what wakes the CPU; HLT without it never returns and is Unexpected
    std::function<void()> on_pause;
    std::function<void(void* context)> on_enter_user; // what ring 3 does, up to what brings the CPU back
    u16 gdt_limit = 0, idt_limit = 0, task_register = 0, local_descriptor_table = 0;
    u64 gdt_base = 0, idt_base = 0;
    VmxModel vmx; // VMCS regions, INVEPT and INVVPID logs

    // --- The instructions ----------------------------------------------------------------------------------------
    CpuidValues cpuid(u32 leaf, u32 subleaf) const;
    u64 rdmsr(u32 index);
    void wrmsr(u32 index, u64 value);
    bool rdmsr_safe(u32 index, u64& value);
    bool wrmsr_safe(u32 index, u64 value);
    u64 rdtsc();
    u32 in(u16 port, unsigned width);
    void out(u16 port, unsigned width, u32 value);
    u64 load(u64 address, unsigned width);
    void store(u64 address, unsigned width, u64 value);
    void write_cr4(u64 value);
    void hlt();
    void pause();
    void enter_user(void* context);
    void take_interrupts();
    void xsetbv(u32 index, u64 value);
    u64 xgetbv(u32 index);
    u32 rdpkru();
    bool vmxon(u64 region);
    void require_vmx_operation() const;
    void svm(SvmInstruction::Kind kind, u64 vmcb);
    void set_global_interrupt_flag(bool value);

private:
    struct Msr {
        u64 value = 0;
        bool is_read_only = false;
        std::function<u64()> on_read;
        std::function<bool(u64)> on_write;
    };
    struct Ports {
        u16 first, count;
        PortDevice device;
    };
    struct Window {
        u64 base, size;
        MmioDevice device;
    };
    Ports const& ports_at(u16 port, unsigned width, char const* what) const;
    Window const& window_at(u64 address, unsigned width, char const* what) const;
    void require_svm() const;

    Cpu* previous_;
    std::map<u32, Msr> msrs_;
    std::map<std::pair<u32, u32>, CpuidValues> cpuid_;
    std::vector<Ports> ports_;
    std::vector<Window> windows_;
};

} // namespace fakes
