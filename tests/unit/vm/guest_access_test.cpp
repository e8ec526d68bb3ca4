// SPDX-License-Identifier: MIT
// Device accesses and string I/O of a guest, from its code bytes to the platform.
#include "vm/fake_vcpu.hpp"

#include <vm/emulate.hpp>
#include <vm/guest_access.hpp>
#include <vm/guest_operand.hpp>

namespace {

using fake::u16;
using fake::u32;
using fake::u64;
using fake::u8;
using vm::CpuMode;
using vm::Gpr;
using vm::Outcome;
using vm::SegmentName;

constexpr u64 P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80;
constexpr u64 device = 0xfec0'0000, code = 0x10'0000, stack = 0x18'0000, data = 0x20'0000;
constexpr u64 protected_mode = 0x11, paging_on = 0x8001'0011;

class GuestAccess : public fake::VmTest {
protected:
    GuestAccess() { use(CpuMode::Bits64); }

    // Identity-mapped for both privilege levels; flat segments.
    void use(CpuMode wanted) {
        mode = wanted;
        bool const is_64 = mode == CpuMode::Bits64;
        vcpu().set_cr4(is_64 ? 0x20 : 0);
        vcpu().set_efer(is_64 ? vm::efer::LME | vm::efer::LMA | vm::efer::NXE : 0);
        vcpu().set_cr0(is_64 ? paging_on : protected_mode);
        vcpu().set_cr3(0x1000);
        put<u64>(0x1000, 0x2000 | P | W | U);
        for (u64 i = 0; i < 4; i++) {
            put<u64>(0x2000 + 8 * i, (0x3000 + i * 0x1000) | P | W | U);
            for (u64 j = 0; j < 512; j++)
                put<u64>(0x3000 + i * 0x1000 + 8 * j, (i << 30 | j << 21) | P | W | U | PS);
        }
        u16 const code_type = is_64                     ? vm::segment::long_code
                              : mode == CpuMode::Bits32 ? vm::segment::code_32
                                                        : u16{0x809b};
        vcpu().set_segment(SegmentName::Cs, {8, code_type, ~u32{0}, 0});
        u16 const data_type = mode == CpuMode::Bits16 ? u16{0x8093} : u16{vm::segment::data_32};
        for (auto const name : {SegmentName::Es, SegmentName::Ss, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs})
            vcpu().set_segment(name, {16, data_type, ~u32{0}, 0});
        vcpu().gprs() = {};
        vcpu().gpr(Gpr::Rsp) = stack;
        start({0xf4});
    }
    void start(std::initializer_list<u8> bytes) {
        for (u64 i = 0; u8 const byte : bytes)
            put<u8>(code + i++, byte);
        length = bytes.size();
        vcpu().set_rip(code);
        platform.accesses.clear();
    }
    Outcome access(u64 address, bool is_write) {
        vm::Exit exit{};
        exit.reason = vm::ExitReason::MemoryFault;
        exit.memory = {vm::GuestPhys{address}, is_write, false, false};
        return vm::memory_access(vcpu(), exit);
    }
    // The instruction was carried out, with so many accesses to devices.
    void expect_done(std::initializer_list<u8> bytes, u64 address, bool is_write, std::size_t accesses = 1) {
        start(bytes);
        EXPECT_EQ(access(address, is_write), Outcome::Retry);
        EXPECT_EQ(vcpu().rip(), code + length);
        EXPECT_EQ(platform.accesses.size(), accesses);
    }
    u64 ram(u64 at) {
        u64 value = 0;
        std::memcpy(&value, vm->ram().pointer(vm::GuestPhys{at}, 8), 8);
        return value;
    }
    u64& reg(Gpr name) { return vcpu().gpr(name); }

    CpuMode mode{};
    std::size_t length = 0;
};

TEST_F(GuestAccess, LoadsAndStoresInEveryMode) {
    for (CpuMode const each : {CpuMode::Bits16, CpuMode::Bits32, CpuMode::Bits64}) {
        use(each);
        bool const is_16 = each == CpuMode::Bits16;
        reg(Gpr::Rbx) = device + 0x10;
        reg(Gpr::Rcx) = 0x1122'3344;
        // A 32-bit address and operand, with the prefixes that 16-bit code needs: mov [ebx], ecx; mov edx, [ebx]
        if (is_16)
            expect_done({0x66, 0x67, 0x89, 0x0b}, device + 0x10, true);
        else
            expect_done({0x89, 0x0b}, device + 0x10, true);
        ASSERT_EQ(platform.accesses.size(), 1U);
        EXPECT_EQ(platform.accesses[0].address, device + 0x10);
        EXPECT_EQ(platform.accesses[0].size, 4);
        EXPECT_EQ(platform.accesses[0].value & 0xffff'ffff, 0x1122'3344U);
        platform.device_value = 0xaabb'ccdd'1234'5678;
        if (is_16)
            expect_done({0x66, 0x67, 0x8b, 0x13}, device + 0x10, false);
        else
            expect_done({0x8b, 0x13}, device + 0x10, false);
        EXPECT_EQ(reg(Gpr::Rdx), 0x1234'5678U);
    }
}

TEST_F(GuestAccess, PushesAndPopsReachADevice) {
    for (CpuMode const each : {CpuMode::Bits32, CpuMode::Bits64}) {
        use(each);
        u64 const size = each == CpuMode::Bits64 ? 8 : 4;
        reg(Gpr::Rsp) = device + 0x100;
        reg(Gpr::Rbx) = 0x55;
        expect_done({0x53}, device + 0x100 - size, true); // push rbx
        EXPECT_EQ(platform.accesses[0].value, 0x55U);
        platform.device_value = 0x66;
        expect_done({0x5a}, device + 0x100 - size, false); // pop rdx
        EXPECT_EQ(reg(Gpr::Rdx), 0x66U);
        EXPECT_EQ(reg(Gpr::Rsp), device + 0x100);
        reg(Gpr::Rsp) = stack;
        reg(Gpr::Rbx) = device;
        expect_done({0xff, 0x33}, device, false); // push [rbx]
        EXPECT_EQ(static_cast<u32>(ram(stack - size)), 0x66U);
        expect_done({0x8f, 0x03}, device, true); // pop [rbx]
        EXPECT_EQ(reg(Gpr::Rsp), stack);
    }
}

TEST_F(GuestAccess, DevicesSeeNothingAboveTheSizeOfAnAccess) {
    use(CpuMode::Bits32);
    reg(Gpr::Rsp) = device + 4;
    expect_done({0x6a, 0xff}, device, true); // push -1
    EXPECT_EQ(platform.accesses[0].size, 4);
    EXPECT_EQ(platform.accesses[0].value, 0xffff'ffffU);
}

TEST_F(GuestAccess, PairsAreComparedAndExchanged) {
    reg(Gpr::Rsi) = device;
    platform.device_value = 0x7777'7777'1111'1111;
    reg(Gpr::Rax) = 0x1111'1111;
    reg(Gpr::Rdx) = 0x7777'7777;
    reg(Gpr::Rbx) = 2;
    reg(Gpr::Rcx) = 3;
    expect_done({0xf0, 0x0f, 0xc7, 0x0e}, device, true, 2); // lock cmpxchg8b [rsi]
    EXPECT_EQ(platform.accesses[1].value, u64{3} << 32 | 2);
    EXPECT_NE(vcpu().rflags() & vm::rflags_zf, 0U);
    expect_done({0xf0, 0x48, 0x0f, 0xc7, 0x0e}, device, true, 4); // lock cmpxchg16b [rsi]
    EXPECT_EQ(vcpu().rflags() & vm::rflags_zf, 0U);
    EXPECT_EQ(reg(Gpr::Rax), platform.device_value);
    EXPECT_EQ(reg(Gpr::Rdx), platform.device_value);
    reg(Gpr::Rsi) = device + 8;
    start({0x48, 0x0f, 0xc7, 0x0e});
    EXPECT_EQ(access(device + 8, true), Outcome::Retry);
    EXPECT_EQ(vcpu().rip(), code) << "the CPU refuses 16 bytes that are not aligned";
    EXPECT_TRUE(platform.accesses.empty());
}

TEST_F(GuestAccess, StringsMoveBetweenDevicesAndMemory) {
    put<u32>(data, 0xcafe);
    reg(Gpr::Rsi) = data;
    reg(Gpr::Rdi) = device;
    expect_done({0xa5}, device, true);
    EXPECT_EQ(static_cast<u32>(platform.accesses[0].value), 0xcafeU);
    reg(Gpr::Rsi) = device;
    reg(Gpr::Rdi) = device + 0x100;
    expect_done({0xa5}, device, false, 2);
    EXPECT_TRUE(platform.accesses[1].is_write) << "from one device to another";
    reg(Gpr::Rsi) = device;
    reg(Gpr::Rdi) = data;
    platform.device_value = 0xcafe;
    expect_done({0xa7}, device, false); // cmpsd
    EXPECT_NE(vcpu().rflags() & vm::rflags_zf, 0U);
    reg(Gpr::Rdi) = device;
    reg(Gpr::Rax) = 0xfe;
    expect_done({0xae}, device, false); // scasb
    EXPECT_NE(vcpu().rflags() & vm::rflags_zf, 0U);
}

TEST_F(GuestAccess, VectorsMoveInTwoAccesses) {
    vcpu().set_cr4(0x20 | vm::cr4::OSFXSR);
    reg(Gpr::Rbx) = device;
    platform.device_value = 0x1111'2222'3333'4444;
    expect_done({0x0f, 0x28, 0x0b}, device, false, 2); // movaps xmm1, [rbx]
    EXPECT_EQ(vcpu().vectors[1].low, platform.device_value);
    EXPECT_EQ(vcpu().vectors[1].high, platform.device_value);
    vcpu().vectors[1] = {7, 8};
    expect_done({0x0f, 0x11, 0x0b}, device, true, 2);
    EXPECT_EQ(platform.accesses[1].address, device + 8);
    EXPECT_EQ(platform.accesses[1].value, 8U);
}

// Another vCPU has changed code or registers between the access and our look: what stands there now was not allowed
// by the CPU, and must not happen.
TEST_F(GuestAccess, OnlyTheReportedAccessIsMade) {
    reg(Gpr::Rbx) = device + 0x10;
    reg(Gpr::Rsi) = reg(Gpr::Rdi) = data;
    struct Case {
        std::vector<u8> bytes;
        u64 address;
        bool is_write;
    };
    Case const cases[] = {
        {{0x89, 0x0b}, device + 0x10, false},      // a store where the CPU made a load
        {{0x8b, 0x0b}, device + 0x10, true},       // a load where it made a store
        {{0x89, 0x4b, 0x08}, device + 0x10, true}, // a store elsewhere in the page
        {{0x01, 0x4b, 0x20}, device + 0x10, true}, // the same for a read-modify-write
        {{0xa4}, device + 0x10, true},             // from RAM to RAM
        {{0x39, 0x0b}, device + 0x10, true},       // a comparison does not write
        {{0x90}, device + 0x10, true},             // no access at all
        {{0x50}, device + 0x10, true},             // the stack is in RAM
    };
    for (Case const& each : cases) {
        SCOPED_TRACE(int{each.bytes[0]});
        start({});
        for (u64 i = 0; u8 const byte : each.bytes)
            put<u8>(code + i++, byte);
        vcpu().set_rip(code);
        EXPECT_EQ(access(each.address, each.is_write), Outcome::Retry);
        EXPECT_EQ(vcpu().rip(), code) << "again";
        EXPECT_TRUE(platform.accesses.empty());
        vcpu().unexplained_exits() = 0;
    }
}

TEST_F(GuestAccess, TheSlowPathChecksThePageToo) {
    reg(Gpr::Rbx) = device + 0x10;
    start({0x09, 0x0b}); // or [rbx], ecx
    EXPECT_EQ(access(device + 0x1010, true), Outcome::Retry);
    EXPECT_EQ(vcpu().rip(), code);
    EXPECT_TRUE(platform.accesses.empty());
}

TEST_F(GuestAccess, AnAccessThatNeverMatchesEndsInAFault) {
    reg(Gpr::Rbx) = device;
    start({0x8b, 0x0b});
    unsigned tries = 0;
    Outcome outcome = Outcome::Retry;
    for (; outcome == Outcome::Retry && tries < 1000; tries++)
        outcome = access(device, true);
    EXPECT_EQ(outcome, Outcome::Inject);
    EXPECT_EQ(vcpu().exception().vector, 6);
    EXPECT_LE(tries, 64U);
    EXPECT_EQ(access(device, true), Outcome::Retry) << "and the count begins again";
    expect_done({0x8b, 0x0b}, device, false);
    EXPECT_EQ(vcpu().unexplained_exits(), 0U) << "one that matches forgets the others";
}

TEST_F(GuestAccess, AnOperandMayCrossIntoADevice) {
    // The device's page is mapped after one of RAM, in 4 KiB pages.
    put<u64>(0x3000 + 8, 0x8000 | P | W | U);
    put<u64>(0x8000 + 8 * 511, data | P | W | U);
    put<u64>(0x3000 + 16, 0x9000 | P | W | U);
    put<u64>(0x9000, device | P | W | U);
    reg(Gpr::Rbx) = 0x40'0000 - 2;
    reg(Gpr::Rcx) = 0x1122'3344;
    start({0x89, 0x0b});
    EXPECT_EQ(access(device, true), Outcome::Retry);
    EXPECT_EQ(vcpu().rip(), code + 2);
    EXPECT_EQ(ram(data + 0xffe) & 0xffff, 0x3344U);
    ASSERT_EQ(platform.accesses.size(), 2U);
    EXPECT_EQ(platform.accesses[0].value & 0xff, 0x22U);
    EXPECT_EQ(platform.accesses[1].address, device + 1);
    EXPECT_EQ(platform.accesses[1].value & 0xff, 0x11U);
}

// --- segments

class Segments : public GuestAccess {
protected:
    Segments() { use(CpuMode::Bits32); }
    int fault(SegmentName name, u64 offset, u32 size, bool is_write) {
        auto const found = vm::through_segment(vcpu(), name, offset, size, is_write, mode);
        if (found) return -1;
        EXPECT_TRUE(found.error().has_error_code);
        EXPECT_EQ(found.error().error_code, 0U);
        return found.error().vector;
    }
    void set(SegmentName name, u16 attributes, u32 limit, u64 base = 0) {
        vcpu().set_segment(name, {16, attributes, limit, base});
    }
};

TEST_F(Segments, ExpandUpLimits) {
    set(SegmentName::Ds, 0x4093, 0xfff);
    EXPECT_EQ(fault(SegmentName::Ds, 0xffc, 4, true), -1);
    EXPECT_EQ(fault(SegmentName::Ds, 0xffd, 4, true), 13);
    EXPECT_EQ(fault(SegmentName::Ds, 0xffff'ffff, 4, false), 13);
    set(SegmentName::Ds, 0xc093, ~u32{0});
    EXPECT_EQ(fault(SegmentName::Ds, 0xffff'ffff, 1, false), -1);
    EXPECT_EQ(fault(SegmentName::Ds, 0xffff'ffff, 4, false), 13) << "wraps around";
}

TEST_F(Segments, ExpandDownLimits) {
    set(SegmentName::Ds, 0x4097, 0xfff);
    EXPECT_EQ(fault(SegmentName::Ds, 0xfff, 1, false), 13);
    EXPECT_EQ(fault(SegmentName::Ds, 0x1000, 4, true), -1);
    EXPECT_EQ(fault(SegmentName::Ds, 0xffff'fffc, 4, true), -1);
    set(SegmentName::Ds, 0x0097, 0xfff); // the upper bound of a 16-bit one
    EXPECT_EQ(fault(SegmentName::Ds, 0xfffc, 4, true), -1);
    EXPECT_EQ(fault(SegmentName::Ds, 0xfffd, 4, true), 13);
    set(SegmentName::Ds, 0x0097, 0xffff);
    EXPECT_EQ(fault(SegmentName::Ds, 0xffff, 1, true), 13) << "empty";
}

TEST_F(Segments, Types) {
    set(SegmentName::Ds, 0xc091, ~u32{0}); // read-only data
    EXPECT_EQ(fault(SegmentName::Ds, 0, 4, false), -1);
    EXPECT_EQ(fault(SegmentName::Ds, 0, 4, true), 13);
    EXPECT_EQ(fault(SegmentName::Cs, 0, 4, false), -1);
    EXPECT_EQ(fault(SegmentName::Cs, 0, 4, true), 13);
    set(SegmentName::Cs, 0xc099, ~u32{0}); // execute-only
    EXPECT_EQ(fault(SegmentName::Cs, 0, 4, false), 13);
    set(SegmentName::Es, 0xc093 | vm::segment::unusable, ~u32{0});
    EXPECT_EQ(fault(SegmentName::Es, 0, 4, false), 13);
    set(SegmentName::Es, 0, ~u32{0}); // as AMD-V shows a null selector
    EXPECT_EQ(fault(SegmentName::Es, 0, 4, false), 13);
}

TEST_F(Segments, TheStackHasItsOwnFault) {
    set(SegmentName::Ss, 0x4093, 0xfff);
    EXPECT_EQ(fault(SegmentName::Ss, 0x1000, 1, true), 12);
    set(SegmentName::Ss, 0xc093 | vm::segment::unusable, ~u32{0});
    EXPECT_EQ(fault(SegmentName::Ss, 0, 1, true), 12);
    use(CpuMode::Bits64);
    EXPECT_EQ(fault(SegmentName::Ss, u64{1} << 47, 1, true), 12);
    EXPECT_EQ(fault(SegmentName::Ds, u64{1} << 47, 1, true), 13);
    EXPECT_EQ(fault(SegmentName::Ds, (u64{1} << 47) - 2, 4, true), 13) << "its end";
}

TEST_F(Segments, RealModeKnowsLimitsOnly) {
    use(CpuMode::Bits16);
    vcpu().set_cr0(0x10);
    set(SegmentName::Cs, 0x0099, 0xffff);
    EXPECT_EQ(fault(SegmentName::Cs, 0, 2, true), -1);
    EXPECT_EQ(fault(SegmentName::Cs, 0xffff, 2, false), 13);
    vcpu().set_cr0(protected_mode);
    vcpu().set_rflags(1U << 17 | 2); // virtual-8086 mode
    EXPECT_EQ(fault(SegmentName::Cs, 0, 2, true), -1);
}

TEST_F(Segments, BasesCountIn64BitModeForFsAndGsAlone) {
    use(CpuMode::Bits64);
    set(SegmentName::Ds, vm::segment::data_32, 0, 0x5000);
    set(SegmentName::Gs, vm::segment::data_32, 0, 0x5000);
    EXPECT_EQ(vm::through_segment(vcpu(), SegmentName::Ds, 0x10, 4, true, mode)->linear, 0x10U);
    EXPECT_EQ(vm::through_segment(vcpu(), SegmentName::Gs, 0x10, 4, true, mode)->linear, 0x5010U);
}

TEST_F(Segments, AFaultOfTheOtherOperandIsTheGuests) {
    set(SegmentName::Es, 0xc091, ~u32{0});
    reg(Gpr::Rsi) = device;
    reg(Gpr::Rdi) = data;
    start({0xa4});
    EXPECT_EQ(access(device, false), Outcome::Inject);
    EXPECT_EQ(vcpu().exception().vector, 13);
    EXPECT_TRUE(platform.accesses.empty()) << "the device has not been read";
}

// --- string I/O

class StringIo : public GuestAccess {
protected:
    Outcome string(bool is_in, u8 size, bool is_repeated) {
        vm::Exit exit{};
        exit.reason = vm::ExitReason::PortIo;
        exit.port = {0x80, size, is_in, true, is_repeated};
        return vm::port_string(vcpu(), exit);
    }
};

TEST_F(StringIo, ElementsAreBoundedPerExit) {
    reg(Gpr::Rsi) = data;
    reg(Gpr::Rcx) = 1000;
    start({0xf3, 0x6e});
    EXPECT_EQ(string(false, 1, true), Outcome::Retry);
    EXPECT_EQ(reg(Gpr::Rcx), 488U);
    EXPECT_EQ(vcpu().rip(), code);
    EXPECT_EQ(string(false, 1, true), Outcome::Retry);
    EXPECT_EQ(reg(Gpr::Rcx), 0U);
    EXPECT_EQ(reg(Gpr::Rsi), data + 1000);
    EXPECT_EQ(vcpu().rip(), code + 2);
}

TEST_F(StringIo, InputGoesToWhatMayBeWritten) {
    reg(Gpr::Rdi) = data;
    start({0x6c});
    EXPECT_EQ(string(true, 1, false), Outcome::Retry);
    EXPECT_EQ(ram(data) & 0xff, 0xf0U);
    EXPECT_EQ(ram(0x3000 + 8) & (A | D), A | D) << "as the CPU marks the page";
    put<u64>(0x3000 + 8, 0x20'0000 | P | U | PS);
    vcpu().set_rip(code);
    reg(Gpr::Rdi) = data;
    EXPECT_EQ(string(true, 1, false), Outcome::Inject);
    EXPECT_EQ(vcpu().exception().vector, 14);
    EXPECT_EQ(vcpu().exception().error_code, 3U);
}

TEST_F(StringIo, CodeThatIsNotTheReportedStringIsLookedAtAgain) {
    reg(Gpr::Rdi) = reg(Gpr::Rsi) = data;
    for (auto const& bytes : {std::array<u8, 2>{0x6c, 0x90}, {0x6f, 0x90}, {0xf3, 0x6e}, {0xe4, 0x80}, {0x90, 0x90}}) {
        start({bytes[0], bytes[1]});
        EXPECT_EQ(string(false, 1, false), Outcome::Retry); // OUTSB was reported
        EXPECT_EQ(vcpu().rip(), code);
        EXPECT_EQ(reg(Gpr::Rsi), data);
        EXPECT_EQ(reg(Gpr::Rdi), data);
    }
}

} // namespace
