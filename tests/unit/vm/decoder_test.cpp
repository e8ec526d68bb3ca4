// SPDX-License-Identifier: MIT
#include <vm/decoder.hpp>
#include <vm/instruction_length.hpp>

#include <array>
#include <gtest/gtest.h>
#include <initializer_list>
#include <vector>

namespace {

using lib::u64;
using lib::u8;
using vm::CpuMode;
using vm::Form;
using vm::Instruction;
using vm::Intercepted;
using vm::InterceptedInstruction;
using vm::Kind;
using vm::Repeat;
using vm::SegmentRegister;

struct DecoderForm {
    CpuMode mode;
    std::array<u8, 15> bytes;
    unsigned length;
    Kind kind;
    Form form;
    unsigned operand_size;
    unsigned memory_size;
    int reg;
    bool high_byte;
    long long immediate;
    unsigned base;
    unsigned index;
    unsigned shift;
    long long displacement;
    unsigned address_size;
    bool rip_relative;
    bool lock;
    Repeat repeat;
    SegmentRegister segment;
    char const* text;
};
constexpr DecoderForm decoder_forms[] = {
#include "decoder_forms.inc"
};

struct UnsupportedForm {
    std::array<u8, 15> bytes;
    unsigned length;
    char const* text;
};
constexpr UnsupportedForm unsupported_forms[] = {
#include "decoder_unsupported.inc"
};

struct InterceptedForm {
    CpuMode mode;
    std::array<u8, 15> bytes;
    unsigned length;
    Intercepted kind;
    int reg;
    int control;
    char const* text;
};
constexpr InterceptedForm intercepted_forms[] = {
#include "intercepted_forms.inc"
};

// On the heap and exactly as long as told, so that the sanitizer sees a read behind the end.
std::vector<u8> exactly(std::array<u8, 15> const& bytes, std::size_t length) {
    return {bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length)};
}

void expect_form(DecoderForm const& form, Instruction const& got) {
    EXPECT_EQ(got.length, form.length);
    EXPECT_EQ(got.kind, form.kind);
    EXPECT_EQ(got.form, form.form);
    EXPECT_EQ(got.operand_size, form.operand_size);
    EXPECT_EQ(got.memory_size, form.memory_size);
    if (form.reg >= 0) {
        EXPECT_EQ(got.reg, form.reg);
        EXPECT_EQ(got.high_byte, form.high_byte);
    }
    if (got.has_immediate()) EXPECT_EQ(got.immediate, static_cast<u64>(form.immediate));
    EXPECT_EQ(got.memory.base, form.base);
    EXPECT_EQ(got.memory.index, form.index);
    EXPECT_EQ(got.memory.shift, form.shift);
    EXPECT_EQ(got.memory.displacement & vm::size_mask(form.address_size),
              static_cast<u64>(form.displacement) & vm::size_mask(form.address_size));
    EXPECT_EQ(got.memory.address_size, form.address_size);
    EXPECT_EQ(got.memory.rip_relative, form.rip_relative);
    EXPECT_EQ(got.lock, form.lock);
    EXPECT_EQ(got.repeat, form.repeat);
    EXPECT_EQ(got.memory.segment, form.segment);
}

TEST(Decoder, AgreesWithTheAssembler) {
    static_assert(std::size(decoder_forms) > 400);
    for (DecoderForm const& form : decoder_forms) {
        SCOPED_TRACE(form.text);
        Instruction instruction;
        ASSERT_TRUE(vm::decode(form.bytes, form.mode, instruction)) << "with bytes behind it";
        expect_form(form, instruction);
        ASSERT_TRUE(vm::decode(exactly(form.bytes, form.length), form.mode, instruction)) << "with nothing behind it";
        expect_form(form, instruction);
    }
}

TEST(Decoder, EveryCutIsTruncated) {
    for (DecoderForm const& form : decoder_forms)
        for (std::size_t length = 0; length < form.length; ++length) {
            SCOPED_TRACE(form.text);
            Instruction instruction;
            EXPECT_FALSE(vm::decode(exactly(form.bytes, length), form.mode, instruction));
            EXPECT_EQ(instruction.kind, Kind::Truncated);
        }
}

TEST(Decoder, ClaimsNothingAboutOthers) {
    for (UnsupportedForm const& form : unsupported_forms) {
        SCOPED_TRACE(form.text);
        Instruction instruction;
        EXPECT_FALSE(vm::decode(form.bytes, CpuMode::Bits64, instruction));
        EXPECT_EQ(instruction.kind, Kind::Unsupported);
    }
}

Instruction decoded(std::initializer_list<u8> bytes, CpuMode mode = CpuMode::Bits64) {
    Instruction instruction;
    vm::decode(std::vector<u8>(bytes), mode, instruction);
    return instruction;
}

TEST(Decoder, LegacyPrefixBehindRexMakesItVoid) {
    Instruction const instruction = decoded({0x48, 0x66, 0x89, 0x08});
    EXPECT_EQ(instruction.operand_size, 2);
    EXPECT_EQ(instruction.length, 4);
}

TEST(Decoder, RexBytesAreIncAndDecOutsideOf64BitMode) {
    EXPECT_EQ(decoded({0x48, 0x89, 0x08}, CpuMode::Bits32).kind, Kind::Unsupported);
}

TEST(Decoder, MovsxdIsArplOutsideOf64BitMode) {
    EXPECT_EQ(decoded({0x63, 0x08}, CpuMode::Bits32).kind, Kind::Unsupported);
    EXPECT_EQ(decoded({0x63, 0x08}).kind, Kind::Movsx);
}

TEST(Decoder, SixteenBytesAreTooLong) {
    std::vector<u8> bytes(14, 0x2e);
    bytes.push_back(0x89);
    bytes.push_back(0x08);
    Instruction instruction;
    EXPECT_FALSE(vm::decode(bytes, CpuMode::Bits64, instruction));
    EXPECT_EQ(instruction.kind, Kind::Unsupported) << "#GP, whatever follows";
    bytes.erase(bytes.begin());
    EXPECT_TRUE(vm::decode(bytes, CpuMode::Bits64, instruction)) << "15 bytes are allowed";
    EXPECT_EQ(instruction.length, 15);
}

TEST(Decoder, SegmentOverridesOf64BitMode) {
    EXPECT_EQ(decoded({0x2e, 0x89, 0x08}).memory.segment, SegmentRegister::None);
    EXPECT_EQ(decoded({0x2e, 0x89, 0x08}, CpuMode::Bits32).memory.segment, SegmentRegister::CS);
    EXPECT_EQ(decoded({0x65, 0x89, 0x08}).memory.segment, SegmentRegister::GS);
}

TEST(Decoder, DefaultSegments) {
    EXPECT_EQ(vm::effective_segment(decoded({0x89, 0x08}).memory), SegmentRegister::DS);
    EXPECT_EQ(vm::effective_segment(decoded({0x89, 0x4d, 0x00}).memory), SegmentRegister::SS);
    EXPECT_EQ(vm::effective_segment(decoded({0x89, 0x0c, 0x24}).memory), SegmentRegister::SS);
    EXPECT_EQ(vm::effective_segment(decoded({0x64, 0x89, 0x0c, 0x24}).memory), SegmentRegister::FS);
}

TEST(Decoder, EffectiveAddresses) {
    std::array<u64, 16> gpr{};
    gpr[0] = 0x1000;
    gpr[3] = 0x20;
    EXPECT_EQ(vm::effective_address(decoded({0x89, 0x4c, 0x98, 0xfc}).memory, gpr, 0), 0x107cU) << "rax+rbx*4-4";
    EXPECT_EQ(vm::effective_address(decoded({0x89, 0x0d, 0xf0, 0xff, 0xff, 0xff}).memory, gpr, 0x5000), 0x4ff0U);
    gpr[0] = 0xffff'ffff;
    EXPECT_EQ(vm::effective_address(decoded({0x67, 0x89, 0x48, 0x02}).memory, gpr, 0), 1U) << "wraps at 32 bits";
}

TEST(Decoder, ModeOfCodeSegments) {
    EXPECT_EQ(vm::cpu_mode(true, true, false), CpuMode::Bits64);
    EXPECT_EQ(vm::cpu_mode(true, false, true), CpuMode::Bits32);
    EXPECT_EQ(vm::cpu_mode(false, true, false), CpuMode::Bits16) << "L means nothing outside of long mode";
}

TEST(Intercepted, AgreesWithTheAssembler) {
    static_assert(std::size(intercepted_forms) > 200);
    for (InterceptedForm const& form : intercepted_forms) {
        SCOPED_TRACE(form.text);
        InterceptedInstruction instruction;
        ASSERT_TRUE(vm::decode_intercepted(exactly(form.bytes, form.length), form.mode, instruction));
        EXPECT_EQ(instruction.kind, form.kind);
        EXPECT_EQ(instruction.length, form.length);
        if (form.reg >= 0) EXPECT_EQ(instruction.reg, form.reg);
        if (form.control >= 0) EXPECT_EQ(instruction.control, form.control);
        for (std::size_t length = 0; length < form.length; ++length)
            EXPECT_FALSE(vm::decode_intercepted(exactly(form.bytes, length), form.mode, instruction));
    }
}

InterceptedInstruction intercepted(std::initializer_list<u8> bytes, CpuMode mode = CpuMode::Bits64) {
    InterceptedInstruction instruction;
    vm::decode_intercepted(std::vector<u8>(bytes), mode, instruction);
    return instruction;
}

TEST(Intercepted, PrefixesCountIntoTheLength) {
    EXPECT_EQ(intercepted({0xf3, 0x48, 0x0f, 0xa2}).length, 4);
    EXPECT_EQ(intercepted({0x66, 0x2e, 0x67, 0xf4}).length, 4);
    EXPECT_EQ(intercepted({0xf3, 0x66, 0x6d}, CpuMode::Bits32).length, 3);
}

TEST(Intercepted, NopIsNoPause) {
    EXPECT_EQ(intercepted({0x90}).kind, Intercepted::Unsupported);
    EXPECT_EQ(intercepted({0xf3, 0x90}).kind, Intercepted::Pause);
    EXPECT_EQ(intercepted({0xf3, 0x41, 0x90}).kind, Intercepted::Unsupported) << "XCHG R8, RAX";
}

TEST(Intercepted, IntoDoesNotExistIn64BitMode) {
    EXPECT_EQ(intercepted({0xce}).kind, Intercepted::Unsupported);
    EXPECT_EQ(intercepted({0xce}, CpuMode::Bits32).kind, Intercepted::Into);
}

TEST(Intercepted, LockedCr0IsCr8) {
    InterceptedInstruction const instruction = intercepted({0xf0, 0x0f, 0x22, 0xc1}, CpuMode::Bits32);
    EXPECT_EQ(instruction.control, 8);
    EXPECT_EQ(instruction.reg, 1);
    EXPECT_EQ(instruction.kind, Intercepted::WriteCr);
}

TEST(Intercepted, ControlRegisterMovesIgnoreMod) {
    InterceptedInstruction const instruction = intercepted({0x0f, 0x20, 0x18});
    EXPECT_EQ(instruction.length, 3) << "no SIB, no displacement";
    EXPECT_EQ(instruction.control, 3);
}

TEST(Intercepted, Operands) {
    EXPECT_EQ(intercepted({0xcd, 0x80}).immediate, 0x80);
    EXPECT_EQ(intercepted({0xf1}).kind, Intercepted::Icebp);
    EXPECT_EQ(intercepted({0x66, 0xed}).operand_size, 2);
    EXPECT_EQ(intercepted({0xec}).operand_size, 1);
    EXPECT_EQ(intercepted({0x67, 0xf3, 0x6c}).address_size, 4);
    InterceptedInstruction const invlpg = intercepted({0x0f, 0x01, 0x7c, 0x98, 0x10});
    EXPECT_TRUE(invlpg.has_memory);
    EXPECT_EQ(invlpg.memory.base, 0);
    EXPECT_EQ(invlpg.memory.index, 3);
    EXPECT_EQ(invlpg.memory.displacement, 0x10U);
    EXPECT_FALSE(intercepted({0x0f, 0x01, 0xf3}).has_memory) << "LMSW BX";
    EXPECT_EQ(intercepted({0x0f, 0x01, 0xf3}).reg, 3);
}

TEST(Intercepted, OthersHaveNoLength) {
    EXPECT_EQ(vm::instruction_length(std::vector<u8>{0x89, 0x08}, CpuMode::Bits64), 0);
    EXPECT_EQ(vm::instruction_length(std::vector<u8>{0x0f, 0x01, 0xef}, CpuMode::Bits64), 0);
    EXPECT_EQ(vm::instruction_length({}, CpuMode::Bits64), 0);
    EXPECT_EQ(vm::instruction_length(std::vector<u8>{0x0f, 0xa2}, CpuMode::Bits64), 2);
    EXPECT_EQ(vm::instruction_length(std::vector<u8>(15, 0x66), CpuMode::Bits64), 0);
}

} // namespace
