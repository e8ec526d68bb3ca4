#include <vm/emulate.hpp>

#include <gtest/gtest.h>
#include <initializer_list>
#include <vector>

namespace {

using namespace vm;

struct FakeAccess {
    u64 device = 0;
    u64 ram = 0;
    bool to_device = false;
    bool ram_present = true;
    unsigned reads = 0;
    unsigned writes = 0;
    unsigned last_size = 0;
    u64 ram_address = 0;
    SegmentRegister ram_segment = SegmentRegister::None;

    u64 read(unsigned size) {
        ++reads;
        last_size = size;
        return device; // all 64 bits: who forgets to mask is found out
    }
    void write(unsigned size, u64 value) {
        ++writes;
        last_size = size;
        device = value;
    }
    template <typename Change> void update(unsigned size, Change change) {
        u64 value = 0;
        if (change(read(size), value)) write(size, value);
    }
    bool is_write() const { return to_device; }
    bool read_ram(SegmentRegister segment, u64 address, unsigned size, u64& out) {
        ram_segment = segment;
        ram_address = address;
        out = ram & size_mask(size);
        return ram_present;
    }
    bool can_write_ram(SegmentRegister, u64, unsigned) const { return ram_present; }
    bool write_ram(SegmentRegister segment, u64 address, unsigned size, u64 value) {
        ram_segment = segment;
        ram_address = address;
        ram = value & size_mask(size);
        return ram_present;
    }
};

struct Emulation : testing::Test {
    std::array<u64, 16> gpr{};
    u64 rflags = 2;
    FakeAccess access;

    Emulated run(std::initializer_list<u8> bytes, CpuMode mode = CpuMode::Bits64) {
        Instruction instruction;
        EXPECT_TRUE(decode(std::vector<u8>(bytes), mode, instruction));
        return emulate(instruction, EmulationContext{gpr, rflags}, access);
    }
};

TEST_F(Emulation, LoadsMergeByTheirSize) {
    access.device = 0xaaaa'bbbb'cccc'ddee;
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

TEST_F(Emulation, StoresAreMasked) {
    gpr[1] = 0x1122'3344'5566'7788;
    run({0x89, 0x08});
    EXPECT_EQ(access.device, 0x5566'7788U);
    run({0x88, 0x28}); // mov [rax], ch
    EXPECT_EQ(access.device, 0x77U);
    EXPECT_EQ(access.last_size, 1U);
    run({0x48, 0xc7, 0x00, 0xff, 0xff, 0xff, 0xff});
    EXPECT_EQ(access.device, ~u64{0});
    run({0xc7, 0x00, 0xff, 0xff, 0xff, 0xff});
    EXPECT_EQ(access.device, 0xffff'ffffU);
    EXPECT_EQ(access.reads, 0U) << "a store reads nothing";
}

TEST_F(Emulation, Extensions) {
    access.device = 0xffff'ff80;
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
    access.device = 0xf0;
    run({0x83, 0x08, 0x0f}); // or dword [rax], 15
    EXPECT_EQ(access.device, 0xffU);
    EXPECT_EQ(access.reads, 1U);
    EXPECT_EQ(access.writes, 1U);
}

TEST_F(Emulation, ComparisonsDoNotWrite) {
    access.device = 5;
    run({0x83, 0x38, 0x05}); // cmp dword [rax], 5
    EXPECT_NE(rflags & rflags_zf, 0U);
    run({0xf6, 0x00, 0x02}); // test byte [rax], 2
    EXPECT_NE(rflags & rflags_zf, 0U);
    run({0x0f, 0xba, 0x20, 0x02}); // bt dword [rax], 2
    EXPECT_NE(rflags & rflags_cf, 0U);
    EXPECT_EQ(access.writes, 0U);
}

TEST_F(Emulation, RegisterDestination) {
    access.device = 0x10;
    gpr[1] = 0xffff'ffff'0000'0005;
    run({0x2b, 0x08}); // sub ecx, [rax]
    EXPECT_EQ(gpr[1], 0xffff'fff5U);
    EXPECT_NE(rflags & rflags_cf, 0U);
    EXPECT_EQ(access.writes, 0U);
}

TEST_F(Emulation, ExchangeAndCompareExchange) {
    access.device = 7;
    gpr[1] = 9;
    run({0x87, 0x08});
    EXPECT_EQ(access.device, 9U);
    EXPECT_EQ(gpr[1], 7U);
    gpr[0] = 9;
    run({0xf0, 0x0f, 0xb1, 0x0a}); // lock cmpxchg [rdx], ecx
    EXPECT_EQ(access.device, 7U);
    EXPECT_NE(rflags & rflags_zf, 0U);
    gpr[0] = 100;
    run({0xf0, 0x0f, 0xb1, 0x0a});
    EXPECT_EQ(gpr[0], 7U);
    EXPECT_EQ(rflags & rflags_zf, 0U);
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
    EXPECT_EQ(access.writes, 2U);
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

TEST_F(Emulation, MovsInBothDirections) {
    gpr[6] = 0x2000;
    gpr[7] = 0x3000;
    access.device = 0x11223344;
    EXPECT_EQ(run({0xa5}), Emulated::Done); // device to RAM
    EXPECT_EQ(access.ram, 0x11223344U);
    EXPECT_EQ(access.ram_address, 0x3000U);
    EXPECT_EQ(access.ram_segment, SegmentRegister::ES);
    access.to_device = true;
    access.ram = 0x99;
    EXPECT_EQ(run({0x64, 0xa4}), Emulated::Done); // RAM to device
    EXPECT_EQ(access.device, 0x99U);
    EXPECT_EQ(access.ram_address, 0x2004U);
    EXPECT_EQ(access.ram_segment, SegmentRegister::FS);
}

TEST_F(Emulation, MovsWithoutRamTouchesNothing) {
    access.ram_present = false;
    gpr[1] = 5;
    EXPECT_EQ(run({0xf3, 0xa4}), Emulated::RamFault);
    EXPECT_EQ(access.reads, 0U);
    EXPECT_EQ(gpr[1], 5U);
}

TEST_F(Emulation, UnsupportedDoesNothing) {
    Instruction instruction{};
    EXPECT_EQ(emulate(instruction, EmulationContext{gpr, rflags}, access), Emulated::Unsupported);
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
