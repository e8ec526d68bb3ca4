// SPDX-License-Identifier: MIT
// Guest instructions that touch devices by memory or string I/O: fetched, decoded and carried out on the guest's
// behalf.
#include <bit>
#include <cstring>
#include <kernel/log.hpp>
#include <optional>
#include <vm/emulate.hpp>
#include <vm/guest_access.hpp>
#include <vm/guest_operand.hpp>
#include <vm/instruction_length.hpp>
#include <vm/vm.hpp>

namespace vm {
namespace {

constexpr u64 apic_page = apic_base::default_address / lib::page_size;

Outcome inject(Vcpu& vcpu, Exception const& exception) {
    vcpu.raise(exception);
    return Outcome::Inject;
}

// Adds to a register of the instruction's address size.
void step(u64& value, u64 by, u64 mask) {
    u64 const next = (value + by) & mask;
    // A 32-bit write clears the upper half, a 16-bit one keeps it.
    value = mask == 0xffff ? (value & ~mask) | next : next;
}

constexpr u64 string_batch = 512; // elements per exit: bounded work, the guest comes back for the rest

// The elements of one INS or OUTS. Devices see copies: the guest may write to its memory at any time.
class PortString {
public:
    PortString(Vcpu& vcpu, PortAccess const& port, SegmentName segment, CpuMode mode, bool is_down)
        : vcpu_(vcpu), port_(port), segment_(segment), mode_(mode), is_down_(is_down),
          is_user_(vcpu.privilege_level() == 3) {}

    // Up to `limit` elements at `offset`: as many as lie in one page, at least one. 0: `exception` tells the fault.
    u64 run(u64 offset, u64 limit, Exception& exception) {
        [[clang::uninitialized]] auto const part =
            through_segment(vcpu_, segment_, offset, port_.size, port_.is_in, mode_);
        if (!part) return fail(part.error(), exception);
        u64 const in_page = lib::page_size - part->linear % lib::page_size;
        if (in_page < port_.size) [[unlikely]]
            return one(offset, exception);
        [[clang::uninitialized]] auto const at =
            translate(vcpu_, part->linear, {.is_write = port_.is_in, .is_user = is_user_});
        if (!at) return fail(at.error(), exception);
        u64 const size = std::min(in_page, part->room);
        u8* const ram = vcpu_.vm().ram().pointer(*at, size);
        if (is_down_ || ram == nullptr) [[unlikely]]
            return one(offset, exception);
        u64 const count = std::min(limit, size >> size_shift());
        u64 const total = count << size_shift();
        [[clang::uninitialized]] std::array<u8, 512> copy;
        for (u64 done = 0; done < total; done += copy.size()) {
            std::span<u8> const piece{copy.data(), std::min(total - done, copy.size())};
            if (!port_.is_in) std::memcpy(piece.data(), ram + done, piece.size());
            vcpu_.vm().platform().port_string(port_.port, port_.size, port_.is_in, piece);
            if (port_.is_in) std::memcpy(ram + done, piece.data(), piece.size());
        }
        return count;
    }

private:
    static u64 fail(Exception const& found, Exception& exception) {
        exception = found;
        return 0;
    }
    u32 size_shift() const { return port_.size >> 1U; } // 1, 2, 4
    u64 one(u64 offset, Exception& exception) {
        Access const access = port_.is_in ? Access::Write : Access::Read;
        auto const operand = GuestOperand::find(vcpu_, segment_, offset, port_.size, access, mode_);
        if (!operand) return fail(operand.error(), exception);
        VirtualPlatform& platform = vcpu_.vm().platform();
        if (port_.is_in)
            operand->write(vcpu_, port_.size, platform.port_in(port_.port, port_.size));
        else
            platform.port_out(port_.port, port_.size, operand->read(vcpu_, port_.size));
        return 1;
    }
    Vcpu& vcpu_;
    PortAccess const& port_;
    SegmentName segment_;
    CpuMode mode_;
    bool is_down_;
    bool is_user_;
};

bool is_same_string(InterceptedInstruction const& instruction, PortAccess const& port) {
    return instruction.kind == (port.is_in ? Intercepted::Ins : Intercepted::Outs) &&
           (instruction.operand_size == port.size || (instruction.operand_size == 8 && port.size == 4)) &&
           (instruction.repeat != Repeat::None) == port.is_repeated;
}

// Another vCPU may change code or page tables between the access and our look at them: the guest executes the
// instruction again. One that never makes the reported access is one that we do not know.
[[gnu::noinline]] Outcome look_again(Vcpu& vcpu, std::span<u8 const> code, u64 address) {
    constexpr u32 patience = 64;
    if (++vcpu.unexplained_exits() < patience) return Outcome::Retry;
    vcpu.unexplained_exits() = 0;
    if (vcpu.vm().should_warn_of_instruction()) {
        std::array<char, 20> text{};
        lib::BufferSink sink(text);
        for (u8 const byte : code.first(std::min<std::size_t>(code.size(), 4)))
            lib::format(sink, " {:02x}", byte);
        kernel::log_warning("vm {}: instruction{} on device memory at {:#x} is not supported: #UD; rip {:#x}",
                            vcpu.vm().name(), sink.view(), address, vcpu.rip());
    }
    return inject(vcpu, invalid_opcode());
}

// The memory of the instruction that made an exit. [intel/vol3] table 28-7, [amd/vol2] 15.25.6
class FaultingInstruction {
public:
    FaultingInstruction(Vcpu& vcpu, MemoryAccess const& reported, CpuMode mode)
        : vcpu_(vcpu), reported_(reported), mode_(mode) {}

    bool find(unsigned number, SegmentRegister segment, u64 offset, unsigned size, Access access) {
        auto const found = GuestOperand::find(vcpu_, name_of(segment), offset, size, access, mode_);
        if (!found) {
            exception_ = found.error();
            return false;
        }
        operands_[number] = *found;
        bool const is_direction = access == Access::Update || (access == Access::Write) == reported_.is_write;
        is_confirmed_ |= is_direction && found->contains(reported_.address);
        return true;
    }
    bool confirm() const { return is_confirmed_; }
    u64 read(unsigned number, unsigned size, unsigned at) { return operands_[number].read(vcpu_, size, at); }
    void write(unsigned number, unsigned size, u64 value, unsigned at) {
        operands_[number].write(vcpu_, size, value, at);
    }
    template <typename Change> void update(unsigned number, unsigned size, Change change) {
        operands_[number].update(vcpu_, size, MmioChange::to<&Change::operator()>(change));
    }
    bool is_aligned(unsigned number, unsigned size) const { return operands_[number].linear() % size == 0; }
    bool has_vectors() { return (vcpu_.cr0() & (cr0::EM | cr0::TS)) == 0 && (vcpu_.cr4() & cr4::OSFXSR) != 0; }
    Vector vector(unsigned number) { return vcpu_.vector(number); }
    void set_vector(unsigned number, Vector const& value) { vcpu_.set_vector(number, value); }
    Exception const& exception() const { return exception_; }

private:
    Vcpu& vcpu_;
    MemoryAccess const& reported_;
    CpuMode mode_;
    bool is_confirmed_ = false;
    std::array<GuestOperand, 2> operands_;
    Exception exception_{};
};

[[gnu::noinline]] Outcome stop_at_tables(Vcpu& vcpu, u64 address) {
    std::array<char, 100> text{};
    vcpu.vm().crash(
        vcpu, lib::format_to(text, "page tables at {:#x}, where there is no memory; rip {:#x}", address, vcpu.rip()));
    return Outcome::StopVm;
}

u8 stack_size(Vcpu& vcpu, CpuMode mode) {
    if (mode == CpuMode::Bits64) return 8;
    return (vcpu.segment(SegmentName::Ss).attributes & segment::db_bit) != 0 ? 4 : 2;
}

// Any instruction, and any access to the local APIC.
[[gnu::noinline]] Outcome emulate_any(Vcpu& vcpu, Exit const& exit, Instruction const& instruction, CpuMode mode,
                                      std::span<u8 const> code) {
    vcpu.fetch_gprs();
    u64 rflags = vcpu.rflags();
    u64 const rflags_before = rflags;
    EmulationContext const context{vcpu.gprs(), rflags, vcpu.rip() + instruction.length, stack_size(vcpu, mode)};
    FaultingInstruction memory(vcpu, exit.memory, mode);
    auto const result = emulate(instruction, context, memory);
    switch (result) {
    case Emulated::Done:
    case Emulated::Again: break;
    case Emulated::Fault: return inject(vcpu, memory.exception());
    case Emulated::Differs: return look_again(vcpu, code, exit.memory.address.value);
    }
    vcpu.unexplained_exits() = 0;
    vcpu.store_gprs();
    if (rflags != rflags_before) vcpu.set_rflags(rflags);
    if (result == Emulated::Done) vcpu.advance(instruction.length); // last: it ends RF, and TF's trap may follow
    return Outcome::Retry;
}

// The device operand of a plain move.
struct PlatformOperand {
    VirtualPlatform& platform;
    u64 address;

    u64 read(unsigned size) { return platform.mmio_read(address, static_cast<u8>(size)); }
    void write(unsigned size, u64 value) { platform.mmio_write(address, static_cast<u8>(size), value); }
};
struct ApicOperand {
    LocalApic& apic;
    u32 offset;

    u64 read(unsigned size) { return apic.mmio_read(offset, static_cast<u8>(size)); }
    void write(unsigned size, u64 value) { apic.mmio_write(offset, static_cast<u8>(size), value); }
};

// What drivers use: an aligned move between a register and a device, in 64-bit mode, at a register and a displacement,
// with registers that are here already. The CPU has checked the access in this direction at this address; that
// the code is still the one that made it shows in the direction and in the address within the page.
[[gnu::always_inline]] inline bool is_driver_access(Vcpu& vcpu, MemoryAccess const& reported,
                                                    Instruction const& instruction) {
    constexpr u8 rsp = static_cast<u8>(Gpr::Rsp);
    constexpr MemoryParts simple{.base = 0,
                                 .index = no_register,
                                 .shift = 0,
                                 .address_size = 8,
                                 .segment = SegmentRegister::None,
                                 .rip_relative = false,
                                 .reserved = 0};
    if (!is_move(instruction) || instruction.reg == rsp) return false;
    if ((instruction.form == Form::RegisterMemory) == reported.is_write) return false;
    auto const parts = std::bit_cast<u64>(static_cast<MemoryParts const&>(instruction.memory));
    if ((parts & ~u64{0xff}) != std::bit_cast<u64>(simple)) return false;
    u64 offset = instruction.memory.displacement;
    if (u8 const base = instruction.memory.base; base != no_register) {
        if (base == rsp) return false;
        offset += vcpu.gprs().data()[base & 15U];
    }
    // An address of 8 bytes is 64-bit mode's; what is aligned does not cross a page.
    u64 const address = reported.address.value;
    return (address ^ offset) % lib::page_size == 0 && (address & (instruction.memory_size - 1U)) == 0;
}

bool find_intercepted(Vcpu& vcpu, CodeState const& state, InterceptedInstruction& out) {
    std::array<u8, 16> code{};
    u32 const count = fetch_code(vcpu, state, code);
    return decode_intercepted({code.data(), count}, state.mode, out);
}

// The 16 bits that LMSW reads and SMSW writes.
std::expected<GuestOperand, Exception> status_word_of(Vcpu& vcpu, InterceptedInstruction const& instruction,
                                                      Access access, CpuMode mode) {
    u64 const offset = effective_address(instruction.memory, vcpu.gprs(), vcpu.rip() + instruction.length);
    return GuestOperand::find(vcpu, name_of(effective_segment(instruction.memory)), offset, sizeof(u16), access, mode);
}

} // namespace

bool decode_at_rip(Vcpu& vcpu, DecodedInstruction& out) {
    using Kind = DecodedInstruction::Kind;
    auto const state = vcpu.code_state();
    InterceptedInstruction instruction;
    if (!find_intercepted(vcpu, state, instruction)) return false;
    out = {Kind::Other, instruction.length, instruction.control, instruction.reg, 0};
    if (instruction.kind == Intercepted::ReadCr) out.kind = Kind::ReadControl;
    if (instruction.kind == Intercepted::WriteCr) out.kind = Kind::WriteControl;
    if (instruction.kind == Intercepted::Clts) out.kind = Kind::Clts;
    if (instruction.kind == Intercepted::Smsw) out.kind = Kind::Smsw;
    if (instruction.kind != Intercepted::Lmsw) return true;
    out.kind = Kind::Lmsw;
    vcpu.fetch_gprs();
    if (!instruction.has_memory) {
        out.lmsw_source = static_cast<u16>(vcpu.gprs()[instruction.reg]);
        return true;
    }
    auto const operand = status_word_of(vcpu, instruction, Access::Read, state.mode);
    if (!operand || !operand->is_ram()) return false;
    out.lmsw_source = static_cast<u16>(operand->read(vcpu, sizeof(out.lmsw_source)));
    return true;
}

// A register gets as much of CR0 as its size holds, memory always 16 bits. [amd/vol3] SMSW
// Not inlined: each access to a control register would save the registers that this needs.
[[gnu::noinline]] Outcome store_machine_status(Vcpu& vcpu, Exit const& exit) {
    if ((vcpu.cr4() & cr4::UMIP) != 0 && vcpu.privilege_level() != 0) return inject(vcpu, general_protection());
    auto const state = vcpu.code_state();
    InterceptedInstruction instruction;
    // Another vCPU may have changed the code since the exit was described.
    if (!find_intercepted(vcpu, state, instruction) || instruction.kind != Intercepted::Smsw ||
        instruction.length != exit.length)
        return Outcome::Retry;
    vcpu.fetch_gprs();
    if (instruction.has_memory) {
        auto const operand = status_word_of(vcpu, instruction, Access::Write, state.mode);
        if (!operand) return inject(vcpu, operand.error());
        operand->write(vcpu, sizeof(u16), vcpu.cr0());
        return Outcome::Advance;
    }
    u64& to = vcpu.gprs()[instruction.reg];
    u64 const mask = size_mask(instruction.operand_size);
    u64 const kept = instruction.operand_size == sizeof(u16) ? to & ~mask : 0;
    to = kept | (vcpu.cr0() & mask);
    vcpu.store_gprs();
    return Outcome::Advance;
}

Outcome port_string(Vcpu& vcpu, Exit const& exit) {
    [[clang::uninitialized]] auto const state = vcpu.code_state();
    [[clang::uninitialized]] std::array<u8, 16> code;
    u32 const code_size = fetch_code(vcpu, state, code);
    [[clang::uninitialized]] InterceptedInstruction instruction;
    bool const is_known = decode_intercepted({code.data(), code_size}, state.mode, instruction);
    if (!is_known || !is_same_string(instruction, exit.port)) [[unlikely]]
        return look_again(vcpu, {code.data(), code_size}, exit.port.port);
    vcpu.unexplained_exits() = 0;
    u64 const mask = size_mask(instruction.address_size);
    u64& index = vcpu.gpr(exit.port.is_in ? Gpr::Rdi : Gpr::Rsi);
    u64& counter = vcpu.gpr(Gpr::Rcx);
    u64 const wanted = exit.port.is_repeated ? counter & mask : 1;
    if (wanted == 0) return Outcome::Advance;
    u64 const allowed = std::min(wanted, string_batch);
    bool const is_down = (vcpu.rflags() & rflags_df) != 0;
    Exception exception{};
    PortString string(vcpu, exit.port, exit.port.is_in ? SegmentName::Es : name_of(instruction.segment), state.mode,
                      is_down);
    u64 done = 0;
    while (done < allowed) {
        u64 const count = string.run(index & mask, allowed - done, exception);
        if (count == 0) break;
        done += count;
        u64 const bytes = count * exit.port.size;
        step(index, is_down ? u64{0} - bytes : bytes, mask);
    }
    if (exit.port.is_repeated && done != 0) step(counter, u64{0} - done, mask);
    if (done < allowed) return inject(vcpu, exception);
    if (done < wanted) return Outcome::Retry;
    vcpu.advance(instruction.length);
    return Outcome::Retry;
}

// Not inlined: each exit would save the registers that this needs.
[[gnu::noinline]] Outcome memory_access(Vcpu& vcpu, Exit const& exit) {
    u64 const address = exit.memory.address.value;
    bool const in_hole = address - GuestRam::hole_begin < GuestRam::hole_end - GuestRam::hole_begin;
    // Mapped meanwhile, or never a reason to exit: the guest tries again.
    if (!in_hole && vcpu.vm().ram().pointer(exit.memory.address, 1) != nullptr) return Outcome::Retry;
    if (exit.memory.is_table_walk) [[unlikely]]
        return stop_at_tables(vcpu, address);
    // Nobody answers there, so the bus reads as ones, and those are no instruction.
    if (exit.memory.is_fetch) [[unlikely]]
        return inject(vcpu, invalid_opcode());
    [[clang::uninitialized]] auto const state = vcpu.code_state();
    [[clang::uninitialized]] std::array<u8, 16> code;
    u32 const code_size = fetch_code(vcpu, state, code);
    [[clang::uninitialized]] Instruction instruction;
    if (!decode({code.data(), code_size}, state.mode, instruction)) [[unlikely]]
        return look_again(vcpu, {code.data(), code_size}, address);
    if (!is_driver_access(vcpu, exit.memory, instruction)) [[unlikely]]
        return emulate_any(vcpu, exit, instruction, state.mode, {code.data(), code_size});
    vcpu.unexplained_exits() = 0;
    if (address / lib::page_size == apic_page && vcpu.apic().mode() == LocalApic::Mode::XApic) [[unlikely]] {
        ApicOperand operand{vcpu.apic(), static_cast<u32>(address % lib::page_size)};
        emulate_move(instruction, vcpu.gprs(), operand);
    } else {
        PlatformOperand operand{vcpu.vm().platform(), address};
        emulate_move(instruction, vcpu.gprs(), operand);
    }
    vcpu.advance(instruction.length);
    return Outcome::Retry;
}

} // namespace vm
