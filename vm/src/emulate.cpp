// SPDX-License-Identifier: MIT
#include <bit>
#include <vm/emulate.hpp>

namespace vm {
namespace {

constexpr u64 result_flags = rflags_pf | rflags_zf | rflags_sf;
constexpr u64 all_flags = result_flags | rflags_cf | rflags_af | rflags_of;

u64 flags_of_result(u64 value, unsigned size) {
    u64 flags = 0;
    if (value == 0) flags |= rflags_zf;
    if ((value >> (size * 8 - 1)) != 0) flags |= rflags_sf;
    if (std::popcount(value & 0xff) % 2 == 0) flags |= rflags_pf; // of the low byte only. [intel/vol1] 3.4.3.1
    return flags;
}

// Carry, adjust and overflow from the carries out of each bit.
u64 flags_of_carries(u64 carries, u64 signs_differ, unsigned size) {
    unsigned const top = size * 8 - 1;
    u64 flags = 0;
    if (((carries >> top) & 1) != 0) flags |= rflags_cf;
    if (((carries >> 3) & 1) != 0) flags |= rflags_af;
    if (((signs_differ >> top) & 1) != 0) flags |= rflags_of;
    return flags;
}

AluResult add(unsigned size, u64 a, u64 b, u64 carry, u64 rflags) {
    u64 const value = (a + b + carry) & size_mask(size);
    u64 const carries = (a & b) | ((a | b) & ~value);
    u64 const overflow = (a ^ value) & (b ^ value);
    return {value, (rflags & ~all_flags) | flags_of_result(value, size) | flags_of_carries(carries, overflow, size)};
}

AluResult subtract(unsigned size, u64 a, u64 b, u64 borrow, u64 rflags) {
    u64 const value = (a - b - borrow) & size_mask(size);
    u64 const borrows = (~a & b) | ((~a | b) & value);
    u64 const overflow = (a ^ b) & (a ^ value);
    return {value, (rflags & ~all_flags) | flags_of_result(value, size) | flags_of_carries(borrows, overflow, size)};
}

// CF and OF are cleared; AF is undefined and cleared too.
AluResult logic(unsigned size, u64 value, u64 rflags) {
    return {value, (rflags & ~all_flags) | flags_of_result(value, size)};
}

AluResult bit_operation(Kind kind, unsigned size, u64 value, u64 number, u64 rflags) {
    u64 const mask = u64{1} << (number & (size * 8 - 1));
    u64 const flags = (value & mask) != 0 ? rflags | rflags_cf : rflags & ~rflags_cf;
    if (kind == Kind::Bts) return {value | mask, flags};
    if (kind == Kind::Btr) return {value & ~mask, flags};
    if (kind == Kind::Btc) return {value ^ mask, flags};
    return {value, flags};
}

AluResult keep_carry(AluResult result, u64 rflags) {
    return {result.value, (result.rflags & ~rflags_cf) | (rflags & rflags_cf)};
}

} // namespace

AluResult alu(Kind kind, unsigned size, u64 destination, u64 source, u64 rflags) {
    u64 const a = destination & size_mask(size);
    u64 const b = source & size_mask(size);
    u64 const carry = rflags & rflags_cf;
    switch (kind) {
    case Kind::Add: return add(size, a, b, 0, rflags);
    case Kind::Adc: return add(size, a, b, carry, rflags);
    case Kind::Sub:
    case Kind::Cmp: return subtract(size, a, b, 0, rflags);
    case Kind::Sbb: return subtract(size, a, b, carry, rflags);
    case Kind::And:
    case Kind::Test: return logic(size, a & b, rflags);
    case Kind::Or: return logic(size, a | b, rflags);
    case Kind::Xor: return logic(size, a ^ b, rflags);
    case Kind::Inc: return keep_carry(add(size, a, 1, 0, rflags), rflags);
    case Kind::Dec: return keep_carry(subtract(size, a, 1, 0, rflags), rflags);
    case Kind::Not: return {~a & size_mask(size), rflags};
    case Kind::Neg: return subtract(size, 0, a, 0, rflags);
    case Kind::Bt:
    case Kind::Bts:
    case Kind::Btr:
    case Kind::Btc: return bit_operation(kind, size, a, b, rflags);
    case Kind::Unsupported:
    case Kind::Truncated:
    case Kind::Mov:
    case Kind::Movzx:
    case Kind::Movsx:
    case Kind::Movbe:
    case Kind::Xchg:
    case Kind::Xadd:
    case Kind::Cmpxchg:
    case Kind::CmpxchgPair:
    case Kind::Stos:
    case Kind::Lods:
    case Kind::Movs:
    case Kind::Cmps:
    case Kind::Scas:
    case Kind::Push:
    case Kind::Pop:
    case Kind::MoveVector:
    case Kind::MoveVectorAligned:
    case Kind::MoveVectorHigh:
    case Kind::MoveVectorLow: break;
    }
    return {a, rflags};
}

} // namespace vm
