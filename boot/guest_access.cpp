// Guest instructions that touch devices by memory or string I/O: fetched, decoded and carried out on the guest's
// behalf.
#include <boot/virtual_machine.hpp>
#include <kernel/log.hpp>
#include <utility>
#include <vm/guest_walk.hpp>
#include <vmm/emulate.hpp>
#include <vmm/instruction_length.hpp>

namespace boot {
namespace {

using vm::Outcome;
using vm::SegmentName;

constexpr u64 apic_page = vm::apic_base::default_address / lib::page_size;

vmm::CpuMode mode_of(vm::Vcpu& vcpu) {
    auto const cs = vcpu.segment(SegmentName::Cs);
    return vmm::cpu_mode((vcpu.efer() & vm::efer::LMA) != 0, (cs.attributes & vm::segment::l_bit) != 0,
                         (cs.attributes & vm::segment::db_bit) != 0);
}

SegmentName name_of(vmm::Segment segment) {
    constexpr SegmentName names[] = {SegmentName::Es, SegmentName::Cs, SegmentName::Ss,
                                     SegmentName::Ds, SegmentName::Fs, SegmentName::Gs};
    return segment == vmm::Segment::None ? SegmentName::Ds : names[static_cast<unsigned>(segment)];
}

Outcome inject(vm::Vcpu& vcpu, vm::Exception const& exception) {
    vcpu.raise(exception);
    return Outcome::Inject;
}

// One operand of a string instruction in guest memory: checks it as the CPU would and gives the piece of RAM behind it.
class StringOperand {
public:
    StringOperand(vm::Vcpu& vcpu, SegmentName segment, vmm::CpuMode mode, bool is_write)
        : vcpu_(vcpu), segment_(vcpu.segment(segment)), mode_(mode), is_write_(is_write),
          is_64_base_(segment == SegmentName::Fs || segment == SegmentName::Gs) {}

    // nullptr: `exception` tells the fault, or vector 0 when it is device memory, which is not RAM and is read as ones.
    u8* at(u64 offset, u32 size, vm::Exception& exception) {
        u64 linear = 0;
        if (mode_ == vmm::CpuMode::Bits64) {
            linear = offset + (is_64_base_ ? segment_.base : 0);
            if (!vm::is_canonical(linear)) {
                exception = vm::general_protection();
                return nullptr;
            }
        } else {
            bool const is_expand_down = (segment_.attributes & 0xc) == 0x4;
            if ((segment_.attributes & vm::segment::unusable) != 0 ||
                (!is_expand_down && offset + size - 1 > segment_.limit)) {
                exception = vm::general_protection();
                return nullptr;
            }
            linear = (offset + segment_.base) & 0xffff'ffff;
        }
        auto const physical = vm::translate(vcpu_, linear, {is_write_, vcpu_.privilege_level() == 3, true});
        if (!physical) {
            exception = physical.error();
            return nullptr;
        }
        exception.vector = 0;
        return vcpu_.vm().ram().pointer(*physical, size);
    }

private:
    vm::Vcpu& vcpu_;
    vm::Segment segment_;
    vmm::CpuMode mode_;
    bool is_write_;
    bool is_64_base_;
};

// Adds a signed step to a register of the instruction's address size.
void step(u64& value, u64 by, u64 mask) {
    u64 const next = (value + by) & mask;
    // A 32-bit write clears the upper half, a 16-bit one keeps it.
    value = mask == 0xffff ? (value & ~mask) | next : next;
}

constexpr u32 string_batch = 512; // elements per exit: bounded work, the guest comes back for the rest

} // namespace

bool VirtualMachine::decode(vm::Vcpu& vcpu, vm::DecodedInstruction& out) {
    using Kind = vm::DecodedInstruction::Kind;
    std::array<u8, 16> code{};
    u32 const count = vm::fetch_code(vcpu, code);
    auto const mode = mode_of(vcpu);
    vmm::InterceptedInstruction instruction;
    if (!vmm::decode_intercepted({code.data(), count}, mode, instruction)) return false;
    out = {Kind::Other, instruction.length, instruction.control, instruction.reg, 0};
    if (instruction.kind == vmm::Intercepted::ReadCr) out.kind = Kind::ReadControl;
    if (instruction.kind == vmm::Intercepted::WriteCr) out.kind = Kind::WriteControl;
    if (instruction.kind == vmm::Intercepted::Clts) out.kind = Kind::Clts;
    if (instruction.kind != vmm::Intercepted::Lmsw) return true;
    out.kind = Kind::Lmsw;
    vcpu.fetch_gprs();
    if (!instruction.has_memory) {
        out.lmsw_source = static_cast<u16>(vcpu.gprs()[instruction.reg]);
        return true;
    }
    u64 const offset = vmm::effective_address(instruction.memory, vcpu.gprs(), vcpu.rip() + instruction.length);
    StringOperand operand(vcpu, name_of(vmm::effective_segment(instruction.memory)), mode, false);
    vm::Exception exception{};
    u8 const* const at = operand.at(offset, sizeof(out.lmsw_source), exception);
    if (at != nullptr) std::memcpy(&out.lmsw_source, at, sizeof(out.lmsw_source));
    return at != nullptr;
}

Outcome VirtualMachine::port_string(vm::Vcpu& vcpu, vm::Exit const& exit) {
    std::array<u8, 16> code{};
    u32 const count = vm::fetch_code(vcpu, code);
    auto const mode = mode_of(vcpu);
    vmm::InterceptedInstruction instruction;
    if (!vmm::decode_intercepted({code.data(), count}, mode, instruction)) return inject(vcpu, vm::invalid_opcode());
    vcpu.fetch_gprs();
    u64 const mask = vmm::size_mask(instruction.address_size);
    u64& index = vcpu.gpr(exit.port.is_in ? vm::Gpr::Rdi : vm::Gpr::Rsi);
    u64& counter = vcpu.gpr(vm::Gpr::Rcx);
    u32 const size = exit.port.size;
    u64 const step_by = (vcpu.rflags() & vmm::rflags_df) != 0 ? u64{0} - size : u64{size};
    StringOperand operand(vcpu, exit.port.is_in ? SegmentName::Es : name_of(instruction.segment), mode,
                          exit.port.is_in);
    bool const repeated = exit.port.is_repeated;
    if (repeated && (counter & mask) == 0) return Outcome::Advance;

    vm::Exception exception{};
    u8* piece = nullptr; // RAM behind `index`, good to the end of its page while going up
    u64 piece_left = 0;
    bool is_done = false;
    bool const faulted = with_platform([&](vmm::Platform& platform) {
        for (u32 element = 0; element < string_batch && !is_done; element++) {
            if (piece_left < size || step_by != size) {
                u64 const offset = index & mask;
                piece = operand.at(offset, size, exception);
                if (piece == nullptr && exception.vector != 0) return true;
                piece_left = lib::page_size - (offset & (lib::page_size - 1));
                if (piece != nullptr && piece_left < size) piece_left = size; // pieces are contiguous in one block
            }
            u64 value = ~u64{0};
            if (exit.port.is_in) {
                value = platform.io(vmm::Space::Pio, exit.port.port, exit.port.size, vmm::Op::Read, 0).data;
                if (piece != nullptr) std::memcpy(piece, &value, size);
            } else {
                if (piece != nullptr) {
                    value = 0;
                    std::memcpy(&value, piece, size);
                }
                platform.io(vmm::Space::Pio, exit.port.port, exit.port.size, vmm::Op::Write, value);
            }
            if (piece != nullptr) piece += size;
            piece_left -= size;
            step(index, step_by, mask);
            if (repeated) step(counter, ~u64{0}, mask);
            is_done = !repeated || (counter & mask) == 0;
        }
        return false;
    });
    if (faulted) return inject(vcpu, exception);
    if (!is_done) return Outcome::Retry;
    vcpu.advance(instruction.length);
    return Outcome::Retry;
}

namespace {

// The device operand of an emulated instruction, and RAM for the other operand of a MOVS.
class DeviceOperand {
public:
    DeviceOperand(vm::Vcpu& vcpu, vmm::Platform* platform, u64 address, bool is_write, vmm::CpuMode mode)
        : vcpu_(vcpu), platform_(platform), address_(address), is_write_(is_write), mode_(mode) {}

    u64 read(unsigned size) {
        if (platform_ == nullptr)
            return vcpu_.apic().mmio_read(static_cast<u32>(address_ & 0xfff), static_cast<u8>(size));
        return platform_->io(vmm::Space::Mmio, address_, static_cast<u8>(size), vmm::Op::Read, 0).data;
    }
    void write(unsigned size, u64 value) {
        if (platform_ == nullptr)
            vcpu_.apic().mmio_write(static_cast<u32>(address_ & 0xfff), static_cast<u8>(size), value);
        else
            platform_->io(vmm::Space::Mmio, address_, static_cast<u8>(size), vmm::Op::Write, value);
    }
    bool is_write() const { return is_write_; }
    bool read_ram(vmm::Segment segment, u64 offset, unsigned size, u64& value) {
        u8 const* const at = ram(segment, offset, size, false);
        if (at == nullptr) return false;
        value = 0;
        std::memcpy(&value, at, size);
        return true;
    }
    bool can_write_ram(vmm::Segment segment, u64 offset, unsigned size) {
        return ram(segment, offset, size, true) != nullptr;
    }
    bool write_ram(vmm::Segment segment, u64 offset, unsigned size, u64 value) {
        u8* const at = ram(segment, offset, size, true);
        if (at == nullptr) return false;
        std::memcpy(at, &value, size);
        return true;
    }
    vm::Exception const& exception() const { return exception_; }

private:
    u8* ram(vmm::Segment segment, u64 offset, unsigned size, bool is_write) {
        StringOperand operand(vcpu_, name_of(segment), mode_, is_write);
        return operand.at(offset, size, exception_);
    }
    vm::Vcpu& vcpu_;
    vmm::Platform* platform_; // nullptr: the vCPU's own APIC page
    u64 address_;
    bool is_write_;
    vmm::CpuMode mode_;
    vm::Exception exception_{};
};

} // namespace

Outcome VirtualMachine::memory_access(vm::Vcpu& vcpu, vm::Exit const& exit) {
    u64 const address = exit.memory.address.value;
    // Mapped meanwhile, or never a reason to exit: the guest tries again. Code cannot run from devices.
    if (vcpu.vm().ram().pointer(exit.memory.address, 1) != nullptr) return Outcome::Retry;
    if (exit.memory.is_table_walk) {
        std::array<char, 100> text{};
        vm_->stop(vm::EndReason::Crash,
                  lib::format_to(text, "page tables at {:#x}, where there is no memory; rip {:#x}", address, vcpu.rip()));
        return Outcome::StopVm;
    }
    // Nobody answers there, so the bus reads as ones, and those are no instruction.
    if (exit.memory.is_fetch) return inject(vcpu, vm::invalid_opcode());
    std::array<u8, 16> code;
    u32 const count = vm::fetch_code(vcpu, code);
    auto const mode = mode_of(vcpu);
    vmm::Instruction instruction;
    if (!vmm::decode({code.data(), count}, mode, instruction)) {
        if (!std::exchange(has_warned_of_instruction_, true))
            kernel::log_warning("vm {}: instruction {:02x} {:02x} {:02x} {:02x} on device memory at {:#x} is not supported: #UD; rip {:#x}",
                                name(), code[0], code[1], code[2], code[3], address, vcpu.rip());
        return inject(vcpu, vm::invalid_opcode());
    }
    vcpu.fetch_gprs();
    u64 rflags = vcpu.rflags();
    u64 const rflags_before = rflags;
    vmm::EmulationContext const context{vcpu.gprs(), rflags};
    bool const is_apic = address / lib::page_size == apic_page && vcpu.apic().mode() == vm::LocalApic::Mode::XApic;
    auto const run = [&](vmm::Platform* platform, vm::Exception& exception) {
        DeviceOperand operand(vcpu, platform, address, exit.memory.is_write, mode);
        auto const result = vmm::emulate(instruction, context, operand);
        exception = operand.exception();
        return result;
    };
    vm::Exception exception{};
    auto const result = is_apic ? run(nullptr, exception) : with_platform([&](vmm::Platform& p) {
        auto const done = run(&p, exception);
        tell_changed_eoi_vectors();
        return done;
    });
    switch (result) {
    case vmm::Emulated::Done: vcpu.advance(instruction.length); break;
    case vmm::Emulated::Again: break;
    case vmm::Emulated::RamFault:
        if (exception.vector != 0) return inject(vcpu, exception);
        [[fallthrough]];
    case vmm::Emulated::Unsupported: return inject(vcpu, vm::general_protection());
    }
    vcpu.store_gprs();
    if (rflags != rflags_before) vcpu.set_rflags(rflags);
    return Outcome::Retry;
}

} // namespace boot
