// SPDX-License-Identifier: MIT
#pragma once
// Carries out a decoded instruction, one of whose memory operands is a device's.
// Not supported: atomicity towards other processors beyond one read-modify-write of a device (LOCK is ignored),
// CMPXCHG16B in one piece, alignment checks (#AC).
#include <concepts>
#include <vm/decoder.hpp>
#include <vm/fpu_state.hpp>

namespace vm {

struct EmulationContext {
    std::span<u64, 16> gpr; // in encoding order: rAX, rCX, rDX, rBX, rSP, rBP, rSI, rDI, R8..R15
    u64& rflags;
    u64 next_rip;  // of the instruction that follows
    u8 stack_size; // of the stack pointer: 2, 4, 8 bytes
};

enum class Emulated : u8 {
    Done,    // step over the instruction
    Again,   // one element of a repeated string instruction: the guest comes back for the next
    Fault,   // an operand is not to be had: the memory knows the fault; nothing has happened
    Differs, // this instruction does not make the access that the CPU reported; nothing has happened
};

// What an instruction reaches. Each of its operands, at most two, is found before anything is read or written; then
// confirm() says whether one of them is what the CPU reported. read, write and update take 1, 2, 4 or 8 bytes from byte
// `at` of an operand on; update reads and writes what its argument makes of that, if it returns true.
template <typename M>
concept InstructionMemory = requires(M& memory, unsigned n, SegmentRegister segment, u64 value, Vector const& vector) {
    { memory.find(n, segment, value, n, Access::Read) } -> std::same_as<bool>;
    { memory.confirm() } -> std::same_as<bool>;
    { memory.read(n, n, n) } -> std::same_as<u64>;
    memory.write(n, n, value, n);
    memory.update(n, n, [](u64, u64&) { return true; });
    { memory.is_aligned(n, n) } -> std::same_as<bool>;
    { memory.has_vectors() } -> std::same_as<bool>; // SSE instructions do not fault
    { memory.vector(n) } -> std::same_as<Vector>;
    memory.set_vector(n, vector);
};

constexpr u64 rflags_cf = 1U << 0;
constexpr u64 rflags_pf = 1U << 2;
constexpr u64 rflags_af = 1U << 4;
constexpr u64 rflags_zf = 1U << 6;
constexpr u64 rflags_sf = 1U << 7;
constexpr u64 rflags_df = 1U << 10;
constexpr u64 rflags_of = 1U << 11;

struct AluResult {
    u64 value;
    u64 rflags;
};
// Add..Test, Inc, Dec, Not, Neg, Bt..Btc of `size` bytes: destination op source. Bits above the size are ignored on the
// way in and zero on the way out. For Bt.. the source is the bit number, taken modulo the size.
AluResult alu(Kind kind, unsigned size, u64 destination, u64 source, u64 rflags);

constexpr u64 sign_extend(u64 value, unsigned bytes) {
    unsigned const shift = 64 - bytes * 8;
    return static_cast<u64>(static_cast<lib::i64>(value << shift) >> shift);
}

inline u64 read_register(std::span<u64 const, 16> gpr, u8 number, unsigned size, bool high) {
    u64 const value = gpr.data()[number & 15U];
    return (high ? value >> 8 : value) & size_mask(size);
}

// 32-bit results clear the upper half, smaller ones leave the rest alone. [intel/vol1] 3.4.1.1
inline void write_register(std::span<u64, 16> gpr, u8 number, unsigned size, bool high, u64 value) {
    u64& target = gpr.data()[number & 15U];
    if (size >= 4) {
        target = value & size_mask(size);
        return;
    }
    unsigned const shift = high ? 8 : 0;
    u64 const mask = size_mask(size) << shift;
    target = (target & ~mask) | ((value << shift) & mask);
}

// What a device driver's loads and stores are: they need no flags and touch the device once.
constexpr bool is_move(Instruction const& instruction) {
    return instruction.kind == Kind::Mov || instruction.kind == Kind::Movzx || instruction.kind == Kind::Movsx;
}

// One of those. `device` has read(size) and write(size, value).
template <typename Device>
[[gnu::always_inline]] inline void emulate_move(Instruction const& instruction, std::span<u64, 16> gpr,
                                                Device& device) {
    unsigned const size = instruction.memory_size;
    if (instruction.form == Form::RegisterMemory) {
        u64 value = device.read(size);
        if (instruction.kind == Kind::Movzx)
            value &= size_mask(size);
        else if (instruction.kind == Kind::Movsx)
            value = sign_extend(value, size);
        write_register(gpr, instruction.reg, instruction.operand_size, instruction.high_byte, value);
    } else if (instruction.form == Form::MemoryRegister) {
        device.write(size, read_register(gpr, instruction.reg, size, instruction.high_byte));
    } else {
        device.write(size, instruction.immediate & size_mask(size));
    }
}

constexpr bool is_vector_move(Kind kind) { return kind >= Kind::MoveVector && kind <= Kind::MoveVectorLow; }
constexpr bool is_string(Kind kind) { return kind >= Kind::Stos && kind <= Kind::Scas; }
constexpr bool is_compare(Kind kind) { return kind == Kind::Cmp || kind == Kind::Test || kind == Kind::Bt; }

// What an instruction with one memory operand does to it.
constexpr Access access_of(Instruction const& instruction) {
    if (instruction.form == Form::RegisterMemory) return Access::Read;
    if (is_compare(instruction.kind)) return Access::Read;
    bool const is_store =
        instruction.kind == Kind::Mov || instruction.kind == Kind::Movbe || is_vector_move(instruction.kind);
    return is_store ? Access::Write : Access::Update;
}

// The carrying out of one instruction.
template <InstructionMemory Memory> class Emulator {
public:
    Emulator(Instruction const& instruction, EmulationContext const& context, Memory& memory)
        : instruction_(instruction), context_(context), memory_(memory), size_(instruction.memory_size) {}

    Emulated run() {
        if (is_string(instruction_.kind)) return string();
        if (instruction_.kind == Kind::Push) return push();
        if (instruction_.kind == Kind::Pop) return pop();
        if (!find(0, effective_segment(instruction_.memory), offset(), access_of(instruction_))) return Emulated::Fault;
        if (!memory_.confirm()) return Emulated::Differs;
        return one_operand();
    }

private:
    bool find(unsigned operand, SegmentRegister segment, u64 at, Access access) {
        return memory_.find(operand, segment, at, size_, access);
    }
    u64 reg() const { return read_register(context_.gpr, instruction_.reg, size_, instruction_.high_byte); }
    void set_reg(u64 value) { write_register(context_.gpr, instruction_.reg, size_, instruction_.high_byte, value); }
    u64 address_mask() const { return size_mask(instruction_.memory.address_size); }

    u64 offset() const {
        u64 const at = effective_address(instruction_.memory, context_.gpr, context_.next_rip);
        bool const is_bit_string = instruction_.kind >= Kind::Bt && instruction_.kind <= Kind::Btc &&
                                   instruction_.form == Form::MemoryRegister;
        if (!is_bit_string) return at;
        // A bit number in a register reaches beyond the operand, to both sides. [intel/vol2] BT
        auto const bit = static_cast<lib::i64>(sign_extend(reg(), size_));
        lib::i64 const elements = bit >> (size_ == 8 ? 6 : size_ == 4 ? 5 : 4);
        return (at + static_cast<u64>(elements) * size_) & address_mask();
    }

    Emulated one_operand() {
        Kind const kind = instruction_.kind;
        if (is_vector_move(kind)) return move_vector();
        if (is_move(instruction_)) {
            Moved moved{memory_};
            emulate_move(instruction_, context_.gpr, moved);
        } else if (kind == Kind::Movbe) {
            swapped_move();
        } else if (kind == Kind::Xchg) {
            exchange();
        } else if (kind == Kind::Xadd) {
            exchange_and_add();
        } else if (kind == Kind::Cmpxchg) {
            compare_exchange();
        } else if (kind == Kind::CmpxchgPair) {
            return compare_exchange_pair();
        } else {
            arithmetic();
        }
        return Emulated::Done;
    }

    struct Moved {
        Memory& memory;
        u64 read(unsigned size) { return memory.read(0, size, 0); }
        void write(unsigned size, u64 value) { memory.write(0, size, value, 0); }
    };

    u64 swap(u64 value) const { return __builtin_bswap64(value) >> (64 - size_ * 8); }
    void swapped_move() {
        if (instruction_.form == Form::RegisterMemory)
            set_reg(swap(memory_.read(0, size_, 0)));
        else
            memory_.write(0, size_, swap(reg()), 0);
    }

    void exchange() {
        memory_.update(0, size_, [this](u64 old, u64& value) {
            value = reg();
            set_reg(old);
            return true;
        });
    }

    void exchange_and_add() {
        memory_.update(0, size_, [this](u64 old, u64& value) {
            AluResult const sum = alu(Kind::Add, size_, old, reg(), context_.rflags);
            set_reg(old);
            context_.rflags = sum.rflags;
            value = sum.value;
            return true;
        });
    }

    // CMPXCHG writes in both cases, as the processor does. [intel/vol2] CMPXCHG
    void compare_exchange() {
        memory_.update(0, size_, [this](u64 read, u64& value) {
            u64 const old = read & size_mask(size_);
            u64 const expected = read_register(context_.gpr, 0, size_, false);
            context_.rflags = alu(Kind::Cmp, size_, expected, old, context_.rflags).rflags;
            value = old == expected ? reg() : old;
            if (old != expected) write_register(context_.gpr, 0, size_, false, old);
            return true;
        });
    }

    // CMPXCHG8B and CMPXCHG16B: the pairs are EDX:EAX and ECX:EBX, or RDX:RAX and RCX:RBX.
    Emulated compare_exchange_pair() {
        u64& rax = context_.gpr[0];
        u64& rcx = context_.gpr[1];
        u64& rdx = context_.gpr[2];
        u64& rbx = context_.gpr[3];
        if (size_ == 16) {
            if (!memory_.is_aligned(0, size_)) return Emulated::Differs; // that is #GP, without an access
            Vector const old{memory_.read(0, 8, 0), memory_.read(0, 8, 8)};
            bool const is_equal = old.low == rax && old.high == rdx;
            memory_.write(0, 8, is_equal ? rbx : old.low, 0);
            memory_.write(0, 8, is_equal ? rcx : old.high, 8);
            if (!is_equal) {
                rax = old.low;
                rdx = old.high;
            }
            set_zero_flag(is_equal);
            return Emulated::Done;
        }
        memory_.update(0, size_, [&](u64 old, u64& value) {
            u64 const low_half = 0xffff'ffff;
            bool const is_equal = old == (rdx << 32 | (rax & low_half));
            value = is_equal ? rcx << 32 | (rbx & low_half) : old;
            if (!is_equal) {
                rax = old & low_half;
                rdx = old >> 32;
            }
            set_zero_flag(is_equal);
            return true;
        });
        return Emulated::Done;
    }
    void set_zero_flag(bool on) { context_.rflags = on ? context_.rflags | rflags_zf : context_.rflags & ~rflags_zf; }

    void arithmetic() {
        Kind const kind = instruction_.kind;
        u64 const other = instruction_.has_immediate() ? instruction_.immediate : reg();
        if (instruction_.form == Form::RegisterMemory) {
            AluResult const result = alu(kind, size_, other, memory_.read(0, size_, 0), context_.rflags);
            context_.rflags = result.rflags;
            if (!is_compare(kind)) set_reg(result.value);
            return;
        }
        if (is_compare(kind)) {
            context_.rflags = alu(kind, size_, memory_.read(0, size_, 0), other, context_.rflags).rflags;
            return;
        }
        memory_.update(0, size_, [&](u64 old, u64& value) {
            AluResult const result = alu(kind, size_, old, other, context_.rflags);
            context_.rflags = result.rflags;
            value = result.value;
            return true;
        });
    }

    // The CPU has looked at alignment and at CR0 and CR4 before it made the access.
    Emulated move_vector() {
        if (!memory_.has_vectors()) return Emulated::Differs;
        if (instruction_.kind == Kind::MoveVectorAligned && !memory_.is_aligned(0, size_)) return Emulated::Differs;
        Vector value = memory_.vector(instruction_.reg);
        bool const is_high = instruction_.kind == Kind::MoveVectorHigh;
        if (instruction_.form == Form::MemoryRegister) {
            memory_.write(0, size_ == 16 ? 8 : size_, is_high ? value.high : value.low, 0);
            if (size_ == 16) memory_.write(0, 8, value.high, 8);
            return Emulated::Done;
        }
        u64 const first = memory_.read(0, size_ == 16 ? 8 : size_, 0) & size_mask(size_ == 16 ? 8 : size_);
        if (is_high)
            value.high = first;
        else if (instruction_.kind == Kind::MoveVectorLow)
            value.low = first;
        else
            value = {first, size_ == 16 ? memory_.read(0, 8, 8) : 0}; // the rest is cleared
        memory_.set_vector(instruction_.reg, value);
        return Emulated::Done;
    }

    void step_index(u8 number) {
        u64 const value = context_.gpr[number];
        write_register(context_.gpr, number, instruction_.memory.address_size, false,
                       (context_.rflags & rflags_df) != 0 ? value - size_ : value + size_);
    }

    // One element of STOS, LODS, MOVS, CMPS or SCAS. Operand 0 is at rSI, operand 1 at ES:rDI.
    Emulated string() {
        constexpr u8 rsi = 6, rdi = 7;
        Kind const kind = instruction_.kind;
        unsigned const address_size = instruction_.memory.address_size;
        bool const is_repeated = instruction_.repeat != Repeat::None;
        u64 const count = context_.gpr[1] & address_mask();
        if (is_repeated && count == 0) return Emulated::Done;

        bool const has_source = kind != Kind::Stos && kind != Kind::Scas;
        bool const has_target = kind != Kind::Lods;
        bool const writes = kind == Kind::Stos || kind == Kind::Movs;
        SegmentRegister const segment = effective_segment(instruction_.memory);
        if (has_source && !find(0, segment, context_.gpr[rsi] & address_mask(), Access::Read)) return Emulated::Fault;
        if (has_target &&
            !find(1, SegmentRegister::ES, context_.gpr[rdi] & address_mask(), writes ? Access::Write : Access::Read))
            return Emulated::Fault;
        if (!memory_.confirm()) return Emulated::Differs;

        u64 const accumulator = context_.gpr[0] & size_mask(size_);
        u64 const source = has_source ? memory_.read(0, size_, 0) : accumulator;
        if (writes)
            memory_.write(1, size_, source, 0);
        else if (kind == Kind::Lods)
            write_register(context_.gpr, 0, size_, false, source);
        else
            context_.rflags = alu(Kind::Cmp, size_, source, memory_.read(1, size_, 0), context_.rflags).rflags;

        if (has_source) step_index(rsi);
        if (has_target) step_index(rdi);
        if (!is_repeated) return Emulated::Done;
        write_register(context_.gpr, 1, address_size, false, count - 1);
        bool const compares = kind == Kind::Cmps || kind == Kind::Scas;
        bool const is_equal = (context_.rflags & rflags_zf) != 0;
        bool const has_ended = compares && is_equal != (instruction_.repeat == Repeat::Rep);
        return count == 1 || has_ended ? Emulated::Done : Emulated::Again;
    }

    static constexpr u8 rsp = 4;
    u64 stack_mask() const { return size_mask(context_.stack_size); }
    void move_stack(u64 by) { write_register(context_.gpr, rsp, context_.stack_size, false, context_.gpr[rsp] + by); }

    // Operand 0 is that of ModRM, operand 1 the top of the stack.
    Emulated push() {
        bool const is_memory = instruction_.form == Form::MemoryOnly;
        if (is_memory && !find(0, effective_segment(instruction_.memory), offset(), Access::Read))
            return Emulated::Fault;
        u64 const top = (context_.gpr[rsp] - size_) & stack_mask();
        if (!find(1, SegmentRegister::SS, top, Access::Write)) return Emulated::Fault;
        if (!memory_.confirm()) return Emulated::Differs;
        u64 const value = is_memory                      ? memory_.read(0, size_, 0)
                          : instruction_.has_immediate() ? instruction_.immediate
                                                         : reg();
        memory_.write(1, size_, value, 0);
        move_stack(u64{0} - size_);
        return Emulated::Done;
    }

    // An address that uses rSP does so after its increment. [intel/vol2] POP
    Emulated pop() {
        bool const is_memory = instruction_.form == Form::MemoryOnly;
        if (!find(1, SegmentRegister::SS, context_.gpr[rsp] & stack_mask(), Access::Read)) return Emulated::Fault;
        u64 const before = context_.gpr[rsp];
        move_stack(size_);
        auto const undo = [&](Emulated result) {
            context_.gpr[rsp] = before;
            return result;
        };
        if (is_memory && !find(0, effective_segment(instruction_.memory), offset(), Access::Write))
            return undo(Emulated::Fault);
        if (!memory_.confirm()) return undo(Emulated::Differs);
        u64 const value = memory_.read(1, size_, 0);
        if (is_memory)
            memory_.write(0, size_, value, 0);
        else
            set_reg(value);
        return Emulated::Done;
    }

    Instruction const& instruction_;
    EmulationContext const& context_;
    Memory& memory_;
    unsigned size_;
};

template <InstructionMemory Memory>
Emulated emulate(Instruction const& instruction, EmulationContext const& context, Memory& memory) {
    return Emulator<Memory>(instruction, context, memory).run();
}

} // namespace vm
