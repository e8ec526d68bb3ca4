// SPDX-License-Identifier: MIT
#include <fakes/cpu.hpp>

#include <cstdio>
#include <memory>
#include <utility>

namespace fakes {
namespace {

thread_local Cpu* current_cpu = nullptr;

constexpr u32 IA32_FEATURE_CONTROL = 0x3a;
constexpr u32 x2apic_icr = 0x830;
constexpr u32 IA32_EFER = 0xc000'0080;
constexpr u64 EFER_SVME = 1 << 12;
constexpr u64 CR4_VMXE = 1 << 13;
constexpr u64 CR4_OSXSAVE = 1 << 18;
constexpr u64 CR4_PKE = 1 << 22;

std::string hex(u64 value) {
    char text[20];
    std::snprintf(text, sizeof(text), "%#llx", static_cast<unsigned long long>(value));
    return text;
}

[[noreturn]] void general_protection(std::string const& why) { throw Fault(13, "#GP: " + why); }
[[noreturn]] void undefined_opcode(std::string const& why) { throw Fault(6, "#UD: " + why); }

constexpr u64 mask_of(unsigned width) { return width == 8 ? ~u64{0} : (u64{1} << width * 8) - 1; }

} // namespace

Cpu::Cpu() : previous_(current_cpu) { current_cpu = this; }
Cpu::~Cpu() { current_cpu = previous_; }
Cpu& Cpu::current() {
    if (current_cpu == nullptr) throw Unexpected("a privileged instruction without a fakes::Cpu in the test");
    return *current_cpu;
}

void Cpu::hook_msr(u32 index, std::function<u64()> on_read, std::function<bool(u64)> on_write) {
    msrs_[index].on_read = std::move(on_read);
    msrs_[index].on_write = std::move(on_write);
}

u64 Cpu::peek_msr(u32 index) const {
    auto const found = msrs_.find(index);
    if (found == msrs_.end()) throw Unexpected("the test peeks at MSR " + hex(index) + ", which does not exist");
    return found->second.value;
}

CpuidValues Cpu::cpuid(u32 leaf, u32 subleaf) const {
    if (auto const found = cpuid_.find({leaf, subleaf}); found != cpuid_.end()) return found->second;
    if (auto const found = cpuid_.find({leaf, any_subleaf}); found != cpuid_.end()) return found->second;
    return {0, 0, 0, 0};
}

u64 Cpu::rdmsr(u32 index) {
    u64 value = 0;
    if (!rdmsr_safe(index, value)) general_protection("RDMSR " + hex(index));
    return value;
}

void Cpu::wrmsr(u32 index, u64 value) {
    if (!wrmsr_safe(index, value)) general_protection("WRMSR " + hex(index) + " = " + hex(value));
}

bool Cpu::rdmsr_safe(u32 index, u64& value) {
    auto const found = msrs_.find(index);
    if (found == msrs_.end()) return false;
    rdmsr_counts[index]++;
    value = found->second.on_read ? found->second.on_read() : found->second.value;
    return true;
}

bool Cpu::wrmsr_safe(u32 index, u64 value) {
    auto const found = msrs_.find(index);
    if (found == msrs_.end() || found->second.is_read_only) return false;
    if (found->second.on_write && !found->second.on_write(value)) return false;
    found->second.value = value;
    msr_writes.push_back({index, value});
    if (index == x2apic_icr && !std::exchange(are_stores_visible, false)) unfenced_icr_writes++;
    return true;
}

u64 Cpu::rdtsc() {
    if (on_rdtsc) return on_rdtsc();
    tsc += tsc_step;
    return tsc;
}

void Cpu::add_ports(u16 first, u16 count, PortDevice device) { ports_.push_back({first, count, std::move(device)}); }

void Cpu::add_plain_ports(u16 first, u16 count, u8 initial) {
    auto const bytes = std::make_shared<std::vector<u8>>(count, initial);
    add_ports(first, count,
              {.in =
                   [bytes](u16 offset, unsigned width) {
                       u32 value = 0;
                       for (unsigned i = 0; i < width; i++)
                           value |= u32{(*bytes)[offset + i]} << i * 8;
                       return value;
                   },
               .out =
                   [bytes](u16 offset, unsigned width, u32 value) {
                       for (unsigned i = 0; i < width; i++)
                           (*bytes)[offset + i] = static_cast<u8>(value >> i * 8);
                   }});
}

Cpu::Ports const& Cpu::ports_at(u16 port, unsigned width, char const* what) const {
    // The last registered wins, so that a test can replace one port of a device.
    for (auto range = ports_.rbegin(); range != ports_.rend(); ++range)
        if (port >= range->first && port - range->first + width <= range->count) return *range;
    throw Unexpected(std::string(what) + " of " + std::to_string(width) + " bytes at port " + hex(port) +
                     ": nobody is there");
}

u32 Cpu::in(u16 port, unsigned width) {
    Ports const& range = ports_at(port, width, "IN");
    if (!range.device.in) throw Unexpected("IN from write-only port " + hex(port));
    return static_cast<u32>(range.device.in(static_cast<u16>(port - range.first), width) & mask_of(width));
}

void Cpu::out(u16 port, unsigned width, u32 value) {
    Ports const& range = ports_at(port, width, "OUT");
    port_writes.push_back({port, width, value});
    if (!range.device.out) throw Unexpected("OUT to read-only port " + hex(port));
    range.device.out(static_cast<u16>(port - range.first), width, value);
}

void Cpu::add_mmio(u64 base, u64 size, MmioDevice device) { windows_.push_back({base, size, std::move(device)}); }

std::vector<u8>& Cpu::add_ram(u64 base, u64 size) {
    auto const bytes = std::make_shared<std::vector<u8>>(size);
    add_mmio(base, size,
             {.load =
                  [bytes](u64 offset, unsigned width) {
                      u64 value = 0;
                      for (unsigned i = 0; i < width; i++)
                          value |= u64{(*bytes)[offset + i]} << i * 8;
                      return value;
                  },
              .store =
                  [bytes](u64 offset, unsigned width, u64 value) {
                      for (unsigned i = 0; i < width; i++)
                          (*bytes)[offset + i] = static_cast<u8>(value >> i * 8);
                  }});
    return *bytes;
}

Cpu::Window const& Cpu::window_at(u64 address, unsigned width, char const* what) const {
    for (auto window = windows_.rbegin(); window != windows_.rend(); ++window) {
        if (address < window->base || address - window->base >= window->size) continue;
        if ((window->device.widths & width) == 0 || address - window->base + width > window->size ||
            address % width != 0)
            throw Unexpected(std::string(what) + " of " + std::to_string(width) + " bytes at " + hex(address));
        return *window;
    }
    throw Unexpected(std::string(what) + " at " + hex(address) + ": nobody is there");
}

u64 Cpu::load(u64 address, unsigned width) {
    Window const& window = window_at(address, width, "load");
    if (!window.device.load) throw Unexpected("load from write-only " + hex(address));
    return window.device.load(address - window.base, width) & mask_of(width);
}

void Cpu::store(u64 address, unsigned width, u64 value) {
    Window const& window = window_at(address, width, "store");
    mmio_writes.push_back({address, width, value});
    if (!window.device.store) throw Unexpected("store to read-only " + hex(address));
    window.device.store(address - window.base, width, value);
}

void Cpu::write_cr4(u64 value) {
    if (vmx.vmxon_region && (value & CR4_VMXE) == 0) general_protection("CR4.VMXE cleared in VMX operation");
    cr4 = value;
}

void Cpu::enter_user(void* context) {
    if (!on_enter_user) throw Unexpected("ring 3 was entered");
    on_enter_user(context);
}

void Cpu::hlt() {
    hlt_count++;
    if (!on_hlt) throw Unexpected("HLT that nothing wakes");
    on_hlt();
}

void Cpu::pause() {
    pause_count++;
    if (on_pause) on_pause();
}

void Cpu::xsetbv(u32 index, u64 value) {
    if ((cr4 & CR4_OSXSAVE) == 0) undefined_opcode("XSETBV without CR4.OSXSAVE");
    bool const avx_without_sse = (value & 4) != 0 && (value & 2) == 0;
    if (index != 0 || (value & 1) == 0 || avx_without_sse)
        general_protection("XSETBV " + hex(index) + " = " + hex(value));
    xcr0 = value;
}

u64 Cpu::xgetbv(u32 index) {
    if ((cr4 & CR4_OSXSAVE) == 0) undefined_opcode("XGETBV without CR4.OSXSAVE");
    if (index != 0) general_protection("XGETBV " + hex(index));
    return xcr0;
}

u32 Cpu::rdpkru() {
    if ((cr4 & CR4_PKE) == 0) undefined_opcode("RDPKRU without CR4.PKE");
    return pkru;
}

bool Cpu::vmxon(u64 region) {
    if ((cr4 & CR4_VMXE) == 0) undefined_opcode("VMXON without CR4.VMXE");
    u64 control = 0;
    // Locked, and allowed outside SMX. [intel/vol3] 24.7
    if (!rdmsr_safe(IA32_FEATURE_CONTROL, control) || (control & 5) != 5)
        general_protection("VMXON not enabled by IA32_FEATURE_CONTROL");
    return vmx.vmxon(region);
}

void Cpu::require_vmx_operation() const {
    if (!vmx.vmxon_region) undefined_opcode("a VMX instruction outside VMX operation");
}

void Cpu::require_svm() const {
    auto const found = msrs_.find(IA32_EFER);
    if (found == msrs_.end() || (found->second.value & EFER_SVME) == 0)
        undefined_opcode("an SVM instruction without EFER.SVME");
}

void Cpu::take_interrupts() {
    interrupt_windows++;
    if (on_interrupt_window) on_interrupt_window();
}

void Cpu::svm(SvmInstruction::Kind kind, u64 vmcb) {
    require_svm();
    if (vmcb % lib::page_size != 0) general_protection("VMCB address " + hex(vmcb));
    svm_instructions.push_back({kind, vmcb});
}

void Cpu::set_global_interrupt_flag(bool value) {
    require_svm();
    global_interrupt_flag = value;
}

} // namespace fakes
