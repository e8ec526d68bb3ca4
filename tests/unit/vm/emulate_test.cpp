// SPDX-License-Identifier: MIT
#include <vm/emulate.hpp>

#include <algorithm>
#include <cstring>
#include <gtest/gtest.h>
#include <initializer_list>
#include <vector>

namespace {

using namespace vm;

// Two operands, wherever they are.
struct FakeMemory {
    struct Operand {
        std::array<u8, 16> bytes{};
        bool is_found = false;
        SegmentRegister segment = SegmentRegister::None;
        u64 offset = 0;
        unsigned size = 0;
        Access access = Access::Read;
        unsigned reads = 0, writes = 0;
    };
    std::array<Operand, 2> operands;
    int absent = -1; // the operand that is not to be had
    bool is_reported = true;
    bool is_aligned_to_16 = true;
    bool has_sse = true;
    std::array<Vector, 16> vectors{};

    bool find(unsigned n, SegmentRegister segment, u64 offset, unsigned size, Access access) {
        Operand& operand = operands[n];
        operand.is_found = true;
        operand.segment = segment;
        operand.offset = offset;
        operand.size = size;
        operand.access = access;
        return static_cast<int>(n) != absent;
    }
    bool confirm() const { return is_reported; }
    u64 read(unsigned n, unsigned size, unsigned at) {
        EXPECT_TRUE(operands[n].is_found && operands[n].access != Access::Write && at + size <= operands[n].size);
        operands[n].reads++;
        u64 value = 0xa5a5'a5a5'a5a5'a5a5; // above the size: who forgets to mask is found out
        std::memcpy(&value, operands[n].bytes.data() + at, size);
        return value;
    }
    void write(unsigned n, unsigned size, u64 value, unsigned at) {
        EXPECT_TRUE(operands[n].is_found && operands[n].access != Access::Read && at + size <= operands[n].size);
        operands[n].writes++;
        std::memcpy(operands[n].bytes.data() + at, &value, size);
    }
    template <typename Change> void update(unsigned n, unsigned size, Change change) {
        EXPECT_EQ(operands[n].access, Access::Update);
        u64 value = 0;
        if (change(read(n, size, 0), value)) write(n, size, value, 0);
    }
    bool is_aligned(unsigned, unsigned) const { return is_aligned_to_16; }
    bool has_vectors() const { return has_sse; }
    Vector vector(unsigned n) const { return vectors.at(n); }
    void set_vector(unsigned n, Vector const& value) { vectors.at(n) = value; }

    u64 value(unsigned n, unsigned at = 0) const {
        u64 result = 0;
        std::memcpy(&result, operands[n].bytes.data() + at, 8);
        return result;
    }
    void set(unsigned n, u64 low, u64 high = 0) {
        std::memcpy(operands[n].bytes.data(), &low, 8);
        std::memcpy(operands[n].bytes.data() + 8, &high, 8);
    }
};

struct Emulation : testing::Test {
    std::array<u64, 16> gpr{};
    u64 rflags = 2;
    FakeMemory memory;
    u8 stack_size = 8;

    Emulated run(std::initializer_list<u8> bytes, CpuMode mode = CpuMode::Bits64) {
        Instruction instruction;
        EXPECT_TRUE(decode(std::vector<u8>(bytes), mode, instruction));
        memory.operands[0].is_found = memory.operands[1].is_found = false;
        return emulate(instruction, EmulationContext{gpr, rflags, 0x1000, stack_size}, memory);
    }
};

TEST_F(Emulation, LoadsMergeByTheirSize) {
    memory.set(0, 0xaaaa'bbbb'cccc'ddee);
    gpr[1] = 0x1111'2222'3333'4444;
    EXPECT_EQ(run({0x8a, 0x08}), Emulated::Done); // mov cl
    EXPECT_EQ(gpr[1], 0x1111'2222'3333'44eeU);
    run({0x66, 0x8b, 0x08}); // mov cx
    EXPECT_EQ(gpr[1], 0x1111'2222'3333'ddeeU);
    run({0x8a, 0x28}); // mov ch
    EXPECT_EQ(gpr[1], 0x1111'2222'3333'eeeeU);
    run({0x8b, 0x08}); // mov ecx
    EXPECT_EQ(gpr[1], 0xcccc'ddeeU);
    run({0x48, 0x8b, 0x08}); // mov rcx
    EXPECT_EQ(gpr[1], 0xaaaa'bbbb'cccc'ddeeU);
}

TEST_F(Emulation, StoresWriteTheirSizeAndReadNothing) {
    gpr[1] = 0x1122'3344'5566'7788;
    run({0x89, 0x08});
    EXPECT_EQ(memory.value(0), 0x5566'7788U);
    run({0x88, 0x28}); // mov [rax], ch
    EXPECT_EQ(memory.value(0), 0x5566'7777U);
    EXPECT_EQ(memory.operands[0].size, 1U);
    run({0x48, 0xc7, 0x00, 0xff, 0xff, 0xff, 0xff});
    EXPECT_EQ(memory.value(0), ~u64{0});
    EXPECT_EQ(memory.operands[0].reads, 0U);
}

TEST_F(Emulation, Extensions) {
    memory.set(0, 0xffff'ff80);
    run({0x0f, 0xb6, 0x08}); // movzx ecx, byte
    EXPECT_EQ(gpr[1], 0x80U);
    run({0x48, 0x0f, 0xbe, 0x08}); // movsx rcx, byte
    EXPECT_EQ(gpr[1], 0xffff'ffff'ffff'ff80U);
    run({0x0f, 0xbe, 0x08}); // movsx ecx, byte
    EXPECT_EQ(gpr[1], 0xffff'ff80U);
    run({0x48, 0x63, 0x08}); // movsxd
    EXPECT_EQ(gpr[1], 0xffff'ffff'ffff'ff80U);
}

TEST_F(Emulation, ReadModifyWriteReadsAndWritesOnce) {
    memory.set(0, 0xf0);
    run({0x83, 0x08, 0x0f}); // or dword [rax], 15
    EXPECT_EQ(memory.value(0), 0xffU);
    EXPECT_EQ(memory.operands[0].reads, 1U);
    EXPECT_EQ(memory.operands[0].writes, 1U);
}

TEST_F(Emulation, UnaryOperations) {
    memory.set(0, 0x0f);
    run({0xfe, 0x00}); // inc byte [rax]
    EXPECT_EQ(memory.value(0), 0x10U);
    run({0xff, 0x08}); // dec dword
    EXPECT_EQ(memory.value(0), 0x0fU);
    run({0xf6, 0x10}); // not byte
    EXPECT_EQ(memory.value(0), 0xf0U);
    run({0xf6, 0x18}); // neg byte
    EXPECT_EQ(memory.value(0), 0x10U);
}

TEST_F(Emulation, ComparisonsDoNotWrite) {
    memory.set(0, 5);
    run({0x83, 0x38, 0x05}); // cmp dword [rax], 5
    EXPECT_NE(rflags & rflags_zf, 0U);
    run({0xf6, 0x00, 0x02}); // test byte [rax], 2
    EXPECT_NE(rflags & rflags_zf, 0U);
    run({0x0f, 0xba, 0x20, 0x02}); // bt dword [rax], 2
    EXPECT_NE(rflags & rflags_cf, 0U);
    EXPECT_EQ(memory.operands[0].access, Access::Read);
    EXPECT_EQ(memory.operands[0].writes, 0U);
}

TEST_F(Emulation, RegisterDestination) {
    memory.set(0, 0x10);
    gpr[1] = 0xffff'ffff'0000'0005;
    run({0x2b, 0x08}); // sub ecx, [rax]
    EXPECT_EQ(gpr[1], 0xffff'fff5U);
    EXPECT_NE(rflags & rflags_cf, 0U);
    EXPECT_EQ(memory.operands[0].writes, 0U);
}

TEST_F(Emulation, ExchangeAndCompareExchange) {
    memory.set(0, 7);
    gpr[1] = 9;
    run({0x87, 0x08});
    EXPECT_EQ(memory.value(0), 9U);
    EXPECT_EQ(gpr[1], 7U);
    gpr[0] = 9;
    run({0xf0, 0x0f, 0xb1, 0x0a}); // lock cmpxchg [rdx], ecx
    EXPECT_EQ(memory.value(0), 7U);
    EXPECT_NE(rflags & rflags_zf, 0U);
    gpr[0] = 100;
    run({0xf0, 0x0f, 0xb1, 0x0a});
    EXPECT_EQ(gpr[0], 7U);
    EXPECT_EQ(rflags & rflags_zf, 0U);
}

TEST_F(Emulation, ExchangeAndAddGivesTheOldValue) {
    memory.set(0, 0xffff'fff0);
    gpr[1] = 0x20;
    run({0xf0, 0x0f, 0xc1, 0x08}); // lock xadd [rax], ecx
    EXPECT_EQ(memory.value(0), 0x10U);
    EXPECT_EQ(gpr[1], 0xffff'fff0U);
    EXPECT_NE(rflags & rflags_cf, 0U);
    gpr[1] = 0x1234;
    run({0x0f, 0xc0, 0x28}); // xadd [rax], ch
    EXPECT_EQ(memory.value(0), 0x22U);
    EXPECT_EQ(gpr[1], 0x1034U);
}

TEST_F(Emulation, CompareExchangeOfPairs) {
    memory.set(0, 0x2222'2222'1111'1111);
    gpr[0] = 0xdead'0000'1111'1111; // only the low halves count
    gpr[2] = 0xdead'0000'2222'2222;
    gpr[1] = 4;
    gpr[3] = 3;
    rflags = rflags_cf | 2;
    run({0xf0, 0x0f, 0xc7, 0x0e}); // lock cmpxchg8b [rsi]
    EXPECT_EQ(memory.value(0), 0x4'0000'0003U);
    EXPECT_EQ(rflags, rflags_cf | rflags_zf | 2) << "ZF alone changes";
    EXPECT_EQ(gpr[0], 0xdead'0000'1111'1111U);
    run({0x0f, 0xc7, 0x0e});
    EXPECT_EQ(memory.value(0), 0x4'0000'0003U);
    EXPECT_EQ(memory.operands[0].writes, 2U) << "written in both cases";
    EXPECT_EQ(gpr[0], 3U);
    EXPECT_EQ(gpr[2], 4U);
    EXPECT_EQ(rflags & rflags_zf, 0U);
    memory.set(0, 3, 4);
    gpr[3] = 7;
    gpr[1] = 8;
    run({0x48, 0x0f, 0xc7, 0x0e}); // cmpxchg16b
    EXPECT_EQ(memory.value(0), 7U);
    EXPECT_EQ(memory.value(0, 8), 8U);
    EXPECT_NE(rflags & rflags_zf, 0U);
}

TEST_F(Emulation, BitStringsReachBeyondTheirOperand) {
    gpr[0] = 0x2000;
    gpr[1] = 70;
    run({0x0f, 0xab, 0x08}); // bts [rax], ecx
    EXPECT_EQ(memory.operands[0].offset, 0x2008U);
    EXPECT_EQ(memory.value(0), u64{1} << 6);
    gpr[1] = 0xffff'ffff; // bit -1
    run({0x0f, 0xa3, 0x08});
    EXPECT_EQ(memory.operands[0].offset, 0x1ffcU);
    gpr[1] = ~u64{0};
    run({0x48, 0x0f, 0xa3, 0x08}); // 64-bit elements
    EXPECT_EQ(memory.operands[0].offset, 0x1ff8U);
    gpr[1] = 0x8000; // bit -32768 of words
    gpr[3] = 0x2000;
    run({0x0f, 0xa3, 0x0f}, CpuMode::Bits16); // bt [bx], cx
    EXPECT_EQ(memory.operands[0].offset, 0x1000U);
    run({0x0f, 0xba, 0x28, 0x25}); // bts dword [rax], 37: an immediate is taken modulo the size
    EXPECT_EQ(memory.operands[0].offset, 0x2000U);
}

TEST_F(Emulation, BytesAreSwapped) {
    memory.set(0, 0x1122'3344);
    run({0x0f, 0x38, 0xf0, 0x08}); // movbe ecx, [rax]
    EXPECT_EQ(gpr[1], 0x4433'2211U);
    gpr[1] = 0x0102'0304'0506'0708;
    run({0x48, 0x0f, 0x38, 0xf1, 0x08}); // movbe [rax], rcx
    EXPECT_EQ(memory.value(0), 0x0807'0605'0403'0201U);
    run({0x66, 0x0f, 0x38, 0xf1, 0x08}); // movbe [rax], cx
    EXPECT_EQ(memory.value(0) & 0xffff, 0x0807U);
}

TEST_F(Emulation, RepeatedStosGoesElementByElement) {
    gpr[0] = 0xaabbccdd;
    gpr[1] = 2;
    gpr[7] = 0x1000;
    EXPECT_EQ(run({0xf3, 0xab}), Emulated::Again);
    EXPECT_EQ(gpr[7], 0x1004U);
    EXPECT_EQ(run({0xf3, 0xab}), Emulated::Done);
    EXPECT_EQ(gpr[1], 0U);
    EXPECT_EQ(run({0xf3, 0xab}), Emulated::Done) << "a count of zero does nothing";
    EXPECT_EQ(memory.operands[1].writes, 2U);
    EXPECT_EQ(memory.operands[1].segment, SegmentRegister::ES);
    EXPECT_EQ(gpr[7], 0x1008U);
}

TEST_F(Emulation, DirectionFlagAndAddressSize) {
    rflags |= rflags_df;
    gpr[7] = 0xffff'ffff'0000'0000;
    run({0x67, 0xaa}); // stosb with edi
    EXPECT_EQ(gpr[7], 0xffff'ffffU);
    gpr[7] = 0x1234'0000;
    run({0xaa}, CpuMode::Bits16);
    EXPECT_EQ(gpr[7], 0x1234'ffffU) << "DI alone moves";
}

TEST_F(Emulation, MovsMovesFromSourceToTarget) {
    gpr[6] = 0x2000;
    gpr[7] = 0x3000;
    memory.set(0, 0x11223344);
    EXPECT_EQ(run({0x64, 0xa5}), Emulated::Done);
    EXPECT_EQ(memory.value(1), 0x11223344U);
    EXPECT_EQ(memory.operands[0].offset, 0x2000U);
    EXPECT_EQ(memory.operands[0].segment, SegmentRegister::FS);
    EXPECT_EQ(memory.operands[1].offset, 0x3000U);
    EXPECT_EQ(memory.operands[1].segment, SegmentRegister::ES);
    EXPECT_EQ(gpr[6], 0x2004U);
    EXPECT_EQ(gpr[7], 0x3004U);
}

TEST_F(Emulation, ComparingStringsEndWithTheirCondition) {
    memory.set(0, 5);
    memory.set(1, 5);
    gpr[1] = 3;
    EXPECT_EQ(run({0xf3, 0xa6}), Emulated::Again); // repe cmpsb
    EXPECT_EQ(gpr[1], 2U);
    memory.set(1, 6);
    EXPECT_EQ(run({0xf3, 0xa6}), Emulated::Done) << "they differ";
    EXPECT_EQ(gpr[1], 1U);
    EXPECT_NE(rflags & rflags_cf, 0U) << "source minus target";
    gpr[0] = 6;
    gpr[1] = 3;
    EXPECT_EQ(run({0xf2, 0xae}), Emulated::Done) << "REPNE SCASB found it";
    EXPECT_EQ(gpr[1], 2U);
    gpr[0] = 7;
    EXPECT_EQ(run({0xf2, 0xae}), Emulated::Again);
    EXPECT_EQ(run({0xf2, 0xae}), Emulated::Done);
    EXPECT_EQ(gpr[1], 0U);
    EXPECT_EQ(gpr[6], 2U);
    EXPECT_EQ(gpr[7], 5U);
    EXPECT_EQ(memory.operands[1].writes, 0U);
}

TEST_F(Emulation, PushAndPop) {
    gpr[4] = 0x1000;
    gpr[3] = 0x1122'3344'5566'7788;
    EXPECT_EQ(run({0x53}), Emulated::Done); // push rbx
    EXPECT_EQ(memory.value(1), gpr[3]);
    EXPECT_EQ(memory.operands[1].segment, SegmentRegister::SS);
    EXPECT_EQ(memory.operands[1].offset, 0xff8U);
    EXPECT_EQ(gpr[4], 0xff8U);
    run({0x6a, 0xf9}); // push -7
    EXPECT_EQ(memory.value(1), ~u64{6});
    run({0x41, 0x58}); // pop r8
    EXPECT_EQ(gpr[8], ~u64{6});
    EXPECT_EQ(gpr[4], 0xff8U);
    memory.set(0, 0x55);
    run({0xff, 0x30}); // push qword [rax]
    EXPECT_EQ(memory.value(1), 0x55U);
    EXPECT_EQ(gpr[4], 0xff0U);
    memory.set(1, 0x66);
    run({0x8f, 0x04, 0x24}); // pop qword [rsp]
    EXPECT_EQ(memory.value(0), 0x66U);
    EXPECT_EQ(memory.operands[0].offset, 0xff8U) << "rSP counts after its increment";
    run({0x54}); // push rsp
    EXPECT_EQ(memory.value(1), 0xff8U) << "rSP counts before its decrement";
    memory.set(1, 0x9999);
    run({0x5c}); // pop rsp
    EXPECT_EQ(gpr[4], 0x9999U);
    run({0x66, 0x50}); // push ax
    EXPECT_EQ(gpr[4], 0x9997U);
    EXPECT_EQ(memory.operands[1].size, 2U);
}

TEST_F(Emulation, StacksOf16And32Bits) {
    stack_size = 2;
    gpr[4] = 0xabcd'0001;
    gpr[0] = 0x1234'5678;
    EXPECT_EQ(run({0x50}, CpuMode::Bits16), Emulated::Done);
    EXPECT_EQ(gpr[4], 0xabcd'ffffU);
    EXPECT_EQ(memory.operands[1].offset, 0xffffU);
    EXPECT_EQ(memory.operands[1].size, 2U);
    stack_size = 4;
    run({0x50}, CpuMode::Bits32);
    EXPECT_EQ(gpr[4], 0xabcd'fffbU);
    EXPECT_EQ(memory.value(1), 0x1234'5678U);
    run({0x68, 0x78, 0x56, 0x34, 0x12}, CpuMode::Bits32);
    EXPECT_EQ(memory.operands[1].size, 4U);
    EXPECT_EQ(memory.value(1), 0x1234'5678U);
}

TEST_F(Emulation, MovesToVectorsClearWhatTheyDoNotLoad) {
    memory.set(0, 0x1111'2222'3333'4444, 0x5555'6666'7777'8888);
    auto const loaded = [&](std::initializer_list<u8> bytes) {
        memory.vectors[1] = {~u64{0}, ~u64{0}};
        EXPECT_EQ(run(bytes), Emulated::Done);
        return memory.vectors[1];
    };
    auto const is = [](Vector const& vector, u64 low, u64 high) { return vector.low == low && vector.high == high; };
    u64 const low = memory.value(0), high = memory.value(0, 8), ones = ~u64{0};
    EXPECT_TRUE(is(loaded({0x0f, 0x10, 0x08}), low, high));                  // movups
    EXPECT_TRUE(is(loaded({0x66, 0x0f, 0x10, 0x08}), low, high));            // movupd
    EXPECT_TRUE(is(loaded({0xf3, 0x0f, 0x10, 0x08}), low & 0xffff'ffff, 0)); // movss
    EXPECT_TRUE(is(loaded({0xf2, 0x0f, 0x10, 0x08}), low, 0));               // movsd
    EXPECT_TRUE(is(loaded({0x0f, 0x28, 0x08}), low, high));                  // movaps
    EXPECT_TRUE(is(loaded({0x66, 0x0f, 0x6f, 0x08}), low, high));            // movdqa
    EXPECT_TRUE(is(loaded({0xf3, 0x0f, 0x6f, 0x08}), low, high));            // movdqu
    EXPECT_TRUE(is(loaded({0xf2, 0x0f, 0xf0, 0x08}), low, high));            // lddqu
    EXPECT_TRUE(is(loaded({0x66, 0x0f, 0x38, 0x2a, 0x08}), low, high));      // movntdqa
    EXPECT_TRUE(is(loaded({0x66, 0x0f, 0x6e, 0x08}), low & 0xffff'ffff, 0)); // movd
    EXPECT_TRUE(is(loaded({0x66, 0x48, 0x0f, 0x6e, 0x08}), low, 0));         // movq
    EXPECT_TRUE(is(loaded({0xf3, 0x0f, 0x7e, 0x08}), low, 0));               // movq
    EXPECT_TRUE(is(loaded({0x0f, 0x12, 0x08}), low, ones));                  // movlps
    EXPECT_TRUE(is(loaded({0x0f, 0x16, 0x08}), ones, low));                  // movhps
}

TEST_F(Emulation, MovesFromVectors) {
    memory.vectors[9] = {0x1111'2222'3333'4444, 0x5555'6666'7777'8888};
    auto const stored = [&](std::initializer_list<u8> bytes, unsigned size, u64 low, u64 high = 0) {
        memory.set(0, 0);
        EXPECT_EQ(run(bytes), Emulated::Done);
        EXPECT_EQ(memory.operands[0].size, size);
        return memory.value(0) == low && memory.value(0, 8) == high;
    };
    u64 const low = memory.vectors[9].low, high = memory.vectors[9].high;
    EXPECT_TRUE(stored({0x44, 0x0f, 0x11, 0x08}, 16, low, high));              // movups [rax], xmm9
    EXPECT_TRUE(stored({0x44, 0x0f, 0x29, 0x08}, 16, low, high));              // movaps
    EXPECT_TRUE(stored({0x44, 0x0f, 0x2b, 0x08}, 16, low, high));              // movntps
    EXPECT_TRUE(stored({0x66, 0x44, 0x0f, 0x7f, 0x08}, 16, low, high));        // movdqa
    EXPECT_TRUE(stored({0xf3, 0x44, 0x0f, 0x7f, 0x08}, 16, low, high));        // movdqu
    EXPECT_TRUE(stored({0x66, 0x44, 0x0f, 0xe7, 0x08}, 16, low, high));        // movntdq
    EXPECT_TRUE(stored({0xf3, 0x44, 0x0f, 0x11, 0x08}, 4, low & 0xffff'ffff)); // movss
    EXPECT_TRUE(stored({0x66, 0x44, 0x0f, 0x7e, 0x08}, 4, low & 0xffff'ffff)); // movd
    EXPECT_TRUE(stored({0x66, 0x4c, 0x0f, 0x7e, 0x08}, 8, low));               // movq
    EXPECT_TRUE(stored({0x66, 0x44, 0x0f, 0xd6, 0x08}, 8, low));               // movq
    EXPECT_TRUE(stored({0x44, 0x0f, 0x13, 0x08}, 8, low));                     // movlps
    EXPECT_TRUE(stored({0x44, 0x0f, 0x17, 0x08}, 8, high));                    // movhps
}

TEST_F(Emulation, VectorsThatTheCpuWouldRefuseAreNotMoved) {
    memory.is_aligned_to_16 = false;
    EXPECT_EQ(run({0x0f, 0x28, 0x08}), Emulated::Differs);
    EXPECT_EQ(run({0x0f, 0x10, 0x08}), Emulated::Done);
    memory.has_sse = false;
    EXPECT_EQ(run({0x0f, 0x10, 0x08}), Emulated::Differs);
}

// Every instruction, with operands that are not there or not what the CPU reported.
TEST_F(Emulation, NothingHappensToAnInstructionThatCannotBeTheOne) {
    std::vector<std::vector<u8>> const instructions = {{0x8b, 0x08},
                                                       {0x89, 0x08},
                                                       {0x01, 0x08},
                                                       {0x87, 0x08},
                                                       {0x0f, 0xb1, 0x08},
                                                       {0x0f, 0xc1, 0x08},
                                                       {0xaa},
                                                       {0xac},
                                                       {0xa4},
                                                       {0xa6},
                                                       {0xae},
                                                       {0x50},
                                                       {0x58},
                                                       {0xff, 0x30},
                                                       {0x8f, 0x04, 0x24},
                                                       {0x0f, 0xc7, 0x08},
                                                       {0xf3, 0xa4},
                                                       {0x0f, 0x10, 0x08},
                                                       {0x0f, 0x11, 0x08},
                                                       {0x0f, 0x38, 0xf0, 0x08}};
    for (unsigned i = 0; i < 16; i++)
        gpr[i] = 0x100 + i;
    auto const before = gpr;
    for (auto const& bytes : instructions)
        for (int const absent : {-1, 0, 1}) {
            memory = {};
            memory.absent = absent;
            memory.is_reported = false;
            Instruction instruction;
            ASSERT_TRUE(decode(bytes, CpuMode::Bits64, instruction));
            auto const result = emulate(instruction, EmulationContext{gpr, rflags, 0x1000, 8}, memory);
            EXPECT_TRUE(result == Emulated::Differs || result == Emulated::Fault) << int{bytes[0]};
            EXPECT_EQ(gpr, before) << int{bytes[0]};
            EXPECT_EQ(rflags, 2U);
            for (auto const& operand : memory.operands)
                EXPECT_EQ(operand.reads + operand.writes, 0U) << int{bytes[0]};
        }
}

// The processor that runs the test is the reference.
struct Reference {
    u64 value;
    u64 flags;
};
#define REFERENCE(NAME, INSTRUCTION, SUFFIX, TYPE)                                                                     \
    Reference NAME(u64 a, u64 b, u64 carry) {                                                                          \
        TYPE value = static_cast<TYPE>(a);                                                                             \
        TYPE const source = static_cast<TYPE>(b);                                                                      \
        u64 flags = 0;                                                                                                 \
        asm("bt $0, %3\n\t" INSTRUCTION SUFFIX "\n\tpushfq\n\tpopq %1"                                                 \
            : "+r"(value), "=r"(flags)                                                                                 \
            : "r"(source), "r"(carry)                                                                                  \
            : "cc");                                                                                                   \
        return {value, flags};                                                                                         \
    }
#define REFERENCES(NAME, BINARY, OPERANDS)                                                                             \
    REFERENCE(NAME##_32, BINARY "l ", OPERANDS "%k0", std::uint32_t)                                                   \
    REFERENCE(NAME##_64, BINARY "q ", OPERANDS "%q0", std::uint64_t)                                                   \
    REFERENCE(NAME##_16, BINARY "w ", OPERANDS "%w0", std::uint16_t)                                                   \
    REFERENCE(NAME##_8, BINARY "b ", OPERANDS "%b0", std::uint8_t)
#define BINARY_REFERENCES(NAME, MNEMONIC)                                                                              \
    REFERENCE(NAME##_32, MNEMONIC "l ", "%k2, %k0", std::uint32_t)                                                     \
    REFERENCE(NAME##_64, MNEMONIC "q ", "%q2, %q0", std::uint64_t)                                                     \
    REFERENCE(NAME##_16, MNEMONIC "w ", "%w2, %w0", std::uint16_t)                                                     \
    REFERENCE(NAME##_8, MNEMONIC "b ", "%b2, %b0", std::uint8_t)
BINARY_REFERENCES(add, "add")
BINARY_REFERENCES(adc, "adc")
BINARY_REFERENCES(sub, "sub")
BINARY_REFERENCES(sbb, "sbb")
BINARY_REFERENCES(cmp, "cmp")
BINARY_REFERENCES(bitwise_and, "and")
BINARY_REFERENCES(bitwise_or, "or")
BINARY_REFERENCES(bitwise_xor, "xor")
BINARY_REFERENCES(test, "test")
REFERENCES(inc, "inc", "")
REFERENCES(dec, "dec", "")
REFERENCES(neg, "neg", "")
REFERENCES(invert, "not", "")

using Function = Reference (*)(u64, u64, u64);
struct Operation4 {
    Kind kind;
    std::array<Function, 4> by_size; // 8, 16, 32, 64 bits
    u64 defined = rflags_cf | rflags_pf | rflags_zf | rflags_sf | rflags_of | rflags_af;
};
constexpr u64 without_af = rflags_cf | rflags_pf | rflags_zf | rflags_sf | rflags_of;
constexpr Operation4 operations[] = {
    {Kind::Add, {add_8, add_16, add_32, add_64}},
    {Kind::Adc, {adc_8, adc_16, adc_32, adc_64}},
    {Kind::Sub, {sub_8, sub_16, sub_32, sub_64}},
    {Kind::Sbb, {sbb_8, sbb_16, sbb_32, sbb_64}},
    {Kind::Cmp, {cmp_8, cmp_16, cmp_32, cmp_64}},
    {Kind::And, {bitwise_and_8, bitwise_and_16, bitwise_and_32, bitwise_and_64}, without_af},
    {Kind::Or, {bitwise_or_8, bitwise_or_16, bitwise_or_32, bitwise_or_64}, without_af},
    {Kind::Xor, {bitwise_xor_8, bitwise_xor_16, bitwise_xor_32, bitwise_xor_64}, without_af},
    {Kind::Test, {test_8, test_16, test_32, test_64}, without_af},
    {Kind::Inc, {inc_8, inc_16, inc_32, inc_64}},
    {Kind::Dec, {dec_8, dec_16, dec_32, dec_64}},
    {Kind::Neg, {neg_8, neg_16, neg_32, neg_64}},
    {Kind::Not, {invert_8, invert_16, invert_32, invert_64}, 0},
};

TEST(Alu, AgreesWithTheProcessor) {
    constexpr u64 values[] = {0,
                              1,
                              2,
                              0x0f,
                              0x10,
                              0x7f,
                              0x80,
                              0xff,
                              0x100,
                              0x7fff,
                              0x8000,
                              0xffff,
                              0x8001,
                              0xabcd,
                              0x7fffffff,
                              0x80000000U,
                              0xffffffffU,
                              u64{1} << 63,
                              ~u64{0},
                              ~(u64{1} << 63),
                              0x123456789abcdef0};
    for (Operation4 const& operation : operations)
        for (unsigned i = 0; i < 4; ++i)
            for (u64 const a : values)
                for (u64 const b : values)
                    for (u64 const carry : {u64{0}, u64{1}}) {
                        unsigned const size = 1U << i;
                        bool const compares = operation.kind == Kind::Cmp || operation.kind == Kind::Test;
                        Reference const expected = operation.by_size[i](a, b, carry);
                        AluResult const got = alu(operation.kind, size, a, b, 0x202 | carry);
                        if (!compares) ASSERT_EQ(got.value, expected.value & size_mask(size));
                        ASSERT_EQ(got.rflags & operation.defined, expected.flags & operation.defined)
                            << static_cast<int>(operation.kind) << " size " << size << ": " << a << ", " << b;
                        ASSERT_EQ(got.rflags & 0x202, 0x202U) << "other flags stay";
                    }
}

TEST(Alu, BitNumbersAreTakenModuloTheSize) {
    EXPECT_EQ(alu(Kind::Bts, 4, 0, 33, 0).value, 2U);
    EXPECT_EQ(alu(Kind::Btr, 2, 0xffff, 17, 0).value, 0xfffdU);
    EXPECT_EQ(alu(Kind::Btc, 8, 0, ~u64{0}, 0).value, u64{1} << 63);
    EXPECT_EQ(alu(Kind::Bt, 8, u64{1} << 40, 40, 0).rflags, rflags_cf);
}

} // namespace
