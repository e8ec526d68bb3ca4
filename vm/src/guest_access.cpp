// Guest instructions that touch devices by memory or string I/O: fetched, decoded and carried out on the guest's
// behalf.
#include <kernel/log.hpp>
#include <utility>
#include <vm/emulate.hpp>
#include <vm/guest_access.hpp>
#include <vm/guest_walk.hpp>
#include <vm/instruction_length.hpp>
#include <vm/vm.hpp>

namespace vm {
namespace {

constexpr u64 apic_page = apic_base::default_address / lib::page_size;

CpuMode mode_of(CodeState const& state) {
    static_assert(static_cast<int>(CodeMode::Bits16) == static_cast<int>(CpuMode::Bits16) &&
                  static_cast<int>(CodeMode::Bits32) == static_cast<int>(CpuMode::Bits32) &&
                  static_cast<int>(CodeMode::Bits64) == static_cast<int>(CpuMode::Bits64));
    return static_cast<CpuMode>(state.mode);
}

SegmentName name_of(SegmentRegister segment) {
    constexpr SegmentName names[] = {SegmentName::Es, SegmentName::Cs, SegmentName::Ss,
                                     SegmentName::Ds, SegmentName::Fs, SegmentName::Gs};
    return segment == SegmentRegister::None ? SegmentName::Ds : names[static_cast<unsigned>(segment)];
}

Outcome inject(Vcpu& vcpu, Exception const& exception) {
    vcpu.raise(exception);
    return Outcome::Inject;
}

// One operand of a string instruction in guest memory, checked as the CPU would check it.
class StringOperand {
public:
    // An element that lies anywhere, byte by byte; nullptr where there is no RAM: reads as ones, and writes are lost.
    struct Element {
        std::array<u8*, 8> bytes;
        u32 size;
        bool is_ram;
    };
    // RAM up to the end of its page or of the segment; `at` is nullptr where there is none.
    struct Piece {
        u8* at;
        u64 size;
    };

    StringOperand(Vcpu& vcpu, SegmentName segment, CpuMode mode, bool is_write)
        : vcpu_(vcpu), segment_(vcpu.segment(segment)), mode_(mode), is_write_(is_write),
          is_64_base_(segment == SegmentName::Fs || segment == SegmentName::Gs) {}

    // False: `exception` tells the fault.
    bool find(u64 offset, u32 size, Piece& piece, Exception& exception) {
        u64 linear = 0;
        u64 in_segment = ~u64{0};
        if (mode_ == CpuMode::Bits64) {
            linear = offset + (is_64_base_ ? segment_.base : 0);
            if (!is_canonical(linear)) {
                exception = general_protection();
                return false;
            }
        } else {
            bool const is_expand_down = (segment_.attributes & 0xc) == 0x4;
            bool const is_outside = !is_expand_down && offset + size - 1 > segment_.limit;
            if ((segment_.attributes & segment::unusable) != 0 || is_outside) {
                exception = general_protection();
                return false;
            }
            in_segment = is_expand_down ? size : u64{segment_.limit} - offset + 1;
            linear = (offset + segment_.base) & 0xffff'ffff;
        }
        auto const physical = translate(vcpu_, linear, {.is_write = is_write_, .is_user = vcpu_.privilege_level() == 3});
        if (!physical) {
            exception = physical.error();
            return false;
        }
        piece.size = std::min(lib::page_size - linear % lib::page_size, in_segment);
        piece.at = vcpu_.vm().ram().pointer(*physical, piece.size);
        return true;
    }

    bool locate(u64 offset, u32 size, u64 mask, Element& element, Exception& exception) {
        element.size = size;
        element.is_ram = true;
        Piece piece{nullptr, 0};
        for (u32 i = 0; i < size; i++, piece.size--) {
            if (piece.size == 0 && !find((offset + i) & mask, i == 0 ? size : 1, piece, exception)) return false;
            element.bytes[i] = piece.at;
            if (piece.at == nullptr)
                element.is_ram = false;
            else
                piece.at++;
        }
        return true;
    }
    static u64 load(Element const& element) {
        u64 value = 0;
        for (u32 i = 0; i < element.size; i++)
            value |= u64{element.bytes[i] != nullptr ? *element.bytes[i] : u8{0xff}} << (i * 8);
        return value;
    }
    static void store(Element const& element, u64 value) {
        for (u32 i = 0; i < element.size; i++)
            if (element.bytes[i] != nullptr) *element.bytes[i] = static_cast<u8>(value >> (i * 8));
    }

private:
    Vcpu& vcpu_;
    Segment segment_;
    CpuMode mode_;
    bool is_write_;
    bool is_64_base_;
};

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
    PortString(VirtualPlatform& platform, PortAccess const& port, StringOperand& operand, u64 mask, bool is_down)
        : platform_(platform), port_(port), operand_(operand), mask_(mask), is_down_(is_down) {}

    // Up to `limit` elements at `offset`: as many as lie in one piece, at least one. 0: `exception` tells the fault.
    u64 run(u64 offset, u64 limit, Exception& exception) {
        StringOperand::Piece piece{nullptr, 0};
        if (!operand_.find(offset, port_.size, piece, exception)) return 0;
        bool const is_single = is_down_ || piece.at == nullptr || piece.size < port_.size;
        if (is_single) [[unlikely]]
            return one(offset, exception) ? 1 : 0;
        u64 const count = std::min(limit, piece.size >> size_shift());
        u64 const total = count << size_shift();
        [[clang::uninitialized]] std::array<u8, 512> copy;
        for (u64 done = 0; done < total; done += copy.size()) {
            std::span<u8> const part{copy.data(), std::min(total - done, copy.size())};
            if (!port_.is_in) std::memcpy(part.data(), piece.at + done, part.size());
            platform_.port_string(port_.port, port_.size, port_.is_in, part);
            if (port_.is_in) std::memcpy(piece.at + done, part.data(), part.size());
        }
        return count;
    }

private:
    u32 size_shift() const { return port_.size >> 1U; } // 1, 2, 4
    bool one(u64 offset, Exception& exception) {
        StringOperand::Element element;
        if (!operand_.locate(offset, port_.size, mask_, element, exception)) return false;
        if (port_.is_in)
            StringOperand::store(element, platform_.port_in(port_.port, port_.size));
        else
            platform_.port_out(port_.port, port_.size, StringOperand::load(element));
        return true;
    }
    VirtualPlatform& platform_;
    PortAccess const& port_;
    StringOperand& operand_;
    u64 mask_;
    bool is_down_;
};

} // namespace

bool decode_at_rip(Vcpu& vcpu, DecodedInstruction& out) {
    using Kind = DecodedInstruction::Kind;
    auto const state = vcpu.code_state();
    std::array<u8, 16> code{};
    u32 const count = fetch_code(vcpu, state, code);
    auto const mode = mode_of(state);
    InterceptedInstruction instruction;
    if (!decode_intercepted({code.data(), count}, mode, instruction)) return false;
    out = {Kind::Other, instruction.length, instruction.control, instruction.reg, 0};
    if (instruction.kind == Intercepted::ReadCr) out.kind = Kind::ReadControl;
    if (instruction.kind == Intercepted::WriteCr) out.kind = Kind::WriteControl;
    if (instruction.kind == Intercepted::Clts) out.kind = Kind::Clts;
    if (instruction.kind != Intercepted::Lmsw) return true;
    out.kind = Kind::Lmsw;
    vcpu.fetch_gprs();
    if (!instruction.has_memory) {
        out.lmsw_source = static_cast<u16>(vcpu.gprs()[instruction.reg]);
        return true;
    }
    u64 const offset = effective_address(instruction.memory, vcpu.gprs(), vcpu.rip() + instruction.length);
    StringOperand operand(vcpu, name_of(effective_segment(instruction.memory)), mode, false);
    Exception exception{};
    StringOperand::Element element;
    if (!operand.locate(offset, sizeof(out.lmsw_source), ~u64{0}, element, exception)) return false;
    out.lmsw_source = static_cast<u16>(StringOperand::load(element));
    return element.is_ram;
}

Outcome port_string(Vcpu& vcpu, Exit const& exit) {
    [[clang::uninitialized]] auto const state = vcpu.code_state();
    [[clang::uninitialized]] std::array<u8, 16> code;
    u32 const code_size = fetch_code(vcpu, state, code);
    auto const mode = mode_of(state);
    InterceptedInstruction instruction;
    if (!decode_intercepted({code.data(), code_size}, mode, instruction)) return inject(vcpu, invalid_opcode());
    u64 const mask = size_mask(instruction.address_size);
    u64& index = vcpu.gpr(exit.port.is_in ? Gpr::Rdi : Gpr::Rsi);
    u64& counter = vcpu.gpr(Gpr::Rcx);
    u64 const wanted = exit.port.is_repeated ? counter & mask : 1;
    if (wanted == 0) return Outcome::Advance;
    u64 const allowed = std::min(wanted, string_batch);
    bool const is_down = (vcpu.rflags() & rflags_df) != 0;
    StringOperand operand(vcpu, exit.port.is_in ? SegmentName::Es : name_of(instruction.segment), mode,
                          exit.port.is_in);
    Exception exception{};
    PortString string(vcpu.vm().platform(), exit.port, operand, mask, is_down);
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

namespace {

// The device operand of a plain move.
struct PlatformOperand {
    VirtualPlatform& platform;
    u64 address;

    u64 read(unsigned size) { return platform.mmio_read(address, static_cast<u8>(size)); }
    void write(unsigned size, u64 value) { platform.mmio_write(address, static_cast<u8>(size), value); }
};

// The device operand of any instruction, and RAM for the other operand of a MOVS.
class DeviceOperand {
public:
    DeviceOperand(Vcpu& vcpu, bool is_apic, u64 address, bool is_write, CpuMode mode)
        : vcpu_(vcpu), is_apic_(is_apic), address_(address), is_write_(is_write), mode_(mode) {}

    u64 read(unsigned size) {
        if (is_apic_) return vcpu_.apic().mmio_read(apic_offset(), static_cast<u8>(size));
        return platform().mmio_read(address_, static_cast<u8>(size));
    }
    void write(unsigned size, u64 value) {
        if (is_apic_)
            vcpu_.apic().mmio_write(apic_offset(), static_cast<u8>(size), value);
        else
            platform().mmio_write(address_, static_cast<u8>(size), value);
    }
    // Nobody but this vCPU writes to its APIC page.
    template <typename Change> void update(unsigned size, Change change) {
        if (!is_apic_) {
            auto const bound = MmioChange::to<&Change::operator()>(change);
            return platform().mmio_update(address_, static_cast<u8>(size), bound);
        }
        u64 value = 0;
        if (change(read(size), value)) write(size, value);
    }
    bool is_write() const { return is_write_; }
    bool read_ram(SegmentRegister segment, u64 offset, unsigned size, u64& value) {
        StringOperand::Element element;
        if (!ram(segment, offset, size, false, element)) return false;
        value = StringOperand::load(element);
        return true;
    }
    bool can_write_ram(SegmentRegister segment, u64 offset, unsigned size) {
        StringOperand::Element element;
        return ram(segment, offset, size, true, element);
    }
    bool write_ram(SegmentRegister segment, u64 offset, unsigned size, u64 value) {
        StringOperand::Element element;
        if (!ram(segment, offset, size, true, element)) return false;
        StringOperand::store(element, value);
        return true;
    }
    Exception const& exception() const { return exception_; }

private:
    bool ram(SegmentRegister segment, u64 offset, unsigned size, bool is_write, StringOperand::Element& element) {
        StringOperand operand(vcpu_, name_of(segment), mode_, is_write);
        return operand.locate(offset, size, ~u64{0}, element, exception_) && element.is_ram;
    }
    VirtualPlatform& platform() { return vcpu_.vm().platform(); }
    u32 apic_offset() const { return static_cast<u32>(address_ & 0xfff); }
    Vcpu& vcpu_;
    bool is_apic_; // the vCPU's own APIC page
    u64 address_;
    bool is_write_;
    CpuMode mode_;
    Exception exception_{};
};

constexpr u8 rsp_number = static_cast<u8>(Gpr::Rsp);

[[gnu::noinline]] Outcome stop_at_tables(Vcpu& vcpu, u64 address) {
    std::array<char, 100> text{};
    vcpu.vm().crash(
        vcpu, lib::format_to(text, "page tables at {:#x}, where there is no memory; rip {:#x}", address, vcpu.rip()));
    return Outcome::StopVm;
}

// Not every instruction can be emulated; `code` is what there is of it.
[[gnu::noinline]] Outcome refuse_instruction(Vcpu& vcpu, u64 address, std::span<u8 const> code) {
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

// Any instruction, and any access to the local APIC.
[[gnu::noinline]] Outcome emulate_any(Vcpu& vcpu, Exit const& exit, Instruction const& instruction, CpuMode mode) {
    u64 const address = exit.memory.address.value;
    vcpu.fetch_gprs();
    u64 rflags = vcpu.rflags();
    u64 const rflags_before = rflags;
    EmulationContext const context{vcpu.gprs(), rflags};
    bool const is_apic = address / lib::page_size == apic_page && vcpu.apic().mode() == LocalApic::Mode::XApic;
    DeviceOperand operand(vcpu, is_apic, address, exit.memory.is_write, mode);
    auto const result = emulate(instruction, context, operand);
    switch (result) {
    case Emulated::Done: vcpu.advance(instruction.length); break;
    case Emulated::Again: break;
    case Emulated::RamFault:
        if (operand.exception().vector != 0) return inject(vcpu, operand.exception());
        [[fallthrough]];
    case Emulated::Unsupported: return inject(vcpu, general_protection());
    }
    vcpu.store_gprs();
    if (rflags != rflags_before) vcpu.set_rflags(rflags);
    return Outcome::Retry;
}

} // namespace

Outcome memory_access(Vcpu& vcpu, Exit const& exit) {
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
    if (!decode({code.data(), code_size}, mode_of(state), instruction)) [[unlikely]]
        return refuse_instruction(vcpu, address, {code.data(), code_size});
    // What drivers use: a move between a register, whose value is here already, and a device of the platform.
    bool const is_plain = is_move(instruction) && instruction.reg != rsp_number;
    if (!is_plain || address / lib::page_size == apic_page) [[unlikely]]
        return emulate_any(vcpu, exit, instruction, mode_of(state));
    PlatformOperand operand{vcpu.vm().platform(), address};
    emulate_move(instruction, vcpu.gprs(), operand);
    vcpu.advance(instruction.length);
    return Outcome::Retry;
}

} // namespace vm
