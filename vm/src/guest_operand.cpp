// SPDX-License-Identifier: MIT
#include <algorithm>
#include <vm/guest_operand.hpp>
#include <vm/vm.hpp>

namespace vm {
namespace {

constexpr u16 type_writable = 0x2, type_readable = 0x2, type_expand_down = 0x4, type_code = 0x8, present = 0x80;
constexpr u64 rflags_vm = lib::bit(17);

// #SS for the stack, #GP for the others.
std::unexpected<Exception> segment_fault(SegmentName name) {
    return std::unexpected(name == SegmentName::Ss ? stack_fault() : general_protection());
}

// Real mode and virtual-8086 mode know limits, but no types. [intel/vol3] 22.1.1
bool allows(Vcpu& vcpu, Segment const& segment, bool is_write) {
    if ((vcpu.cr0() & cr0::PE) == 0 || (vcpu.rflags() & rflags_vm) != 0) return true;
    if ((segment.attributes & segment::unusable) != 0 || (segment.attributes & present) == 0) return false;
    bool const is_code = (segment.attributes & type_code) != 0;
    if (is_write) return !is_code && (segment.attributes & type_writable) != 0;
    return !is_code || (segment.attributes & type_readable) != 0;
}

bool is_apic_page(Vcpu& vcpu, GuestPhys at) {
    return at.value / lib::page_size == apic_base::default_address / lib::page_size &&
           vcpu.apic().mode() == LocalApic::Mode::XApic;
}

u64 read_device(Vcpu& vcpu, GuestPhys at, u8 size) {
    if (is_apic_page(vcpu, at)) return vcpu.apic().mmio_read(static_cast<u32>(at.value % lib::page_size), size);
    return vcpu.vm().platform().mmio_read(at.value, size);
}

void write_device(Vcpu& vcpu, GuestPhys at, u8 size, u64 value) {
    value &= size_mask(size);
    if (is_apic_page(vcpu, at))
        vcpu.apic().mmio_write(static_cast<u32>(at.value % lib::page_size), size, value);
    else
        vcpu.vm().platform().mmio_write(at.value, size, value);
}

u64 load(u8 const* from, u32 size) {
    switch (size) {
    case 1: return *from;
    case 2: return lib::load<u16>(from);
    case 4: return lib::load<u32>(from);
    default: return lib::load<u64>(from);
    }
}

void store(u8* to, u32 size, u64 value) {
    switch (size) {
    case 1: *to = static_cast<u8>(value); break;
    case 2: lib::store(to, static_cast<u16>(value)); break;
    case 4: lib::store(to, static_cast<u32>(value)); break;
    default: lib::store(to, value);
    }
}

} // namespace

SegmentName name_of(SegmentRegister segment) {
    constexpr SegmentName names[] = {SegmentName::Es, SegmentName::Cs, SegmentName::Ss, SegmentName::Ds,
                                     SegmentName::Fs, SegmentName::Gs, SegmentName::Ds};
    return names[static_cast<unsigned>(segment)];
}

std::expected<SegmentPart, Exception> through_any_segment(Vcpu& vcpu, SegmentName name, u64 offset, u32 size,
                                                          bool is_write, CpuMode mode) {
    if (mode == CpuMode::Bits64) {
        bool const has_base = name == SegmentName::Fs || name == SegmentName::Gs;
        u64 const linear = offset + (has_base ? vcpu.segment(name).base : 0);
        if (!is_canonical(linear) || !is_canonical(linear + size - 1)) return segment_fault(name);
        return SegmentPart{linear, lib::page_size - linear % lib::page_size + lib::page_size};
    }
    Segment const segment = vcpu.segment(name);
    if (!allows(vcpu, segment, is_write)) return segment_fault(name);
    // Expand-down: what is above the limit is the segment. [intel/vol3] 6.3
    bool const is_expand_down = (segment.attributes & (type_code | type_expand_down)) == type_expand_down;
    u64 const top = (segment.attributes & segment::db_bit) != 0 ? 0xffff'ffff : 0xffff;
    u64 const first = is_expand_down ? u64{segment.limit} + 1 : 0;
    u64 const last = is_expand_down ? top : segment.limit;
    if (offset < first || offset + size - 1 > last) return segment_fault(name);
    return SegmentPart{(offset + segment.base) & 0xffff'ffff, last - offset + 1};
}

std::expected<GuestOperand, Exception> GuestOperand::find(Vcpu& vcpu, SegmentName name, u64 offset, u32 size,
                                                          Access access, CpuMode mode) {
    bool const is_write = access != Access::Read;
    auto const part = through_segment(vcpu, name, offset, size, is_write, mode);
    if (!part) return std::unexpected(part.error());
    return find_linear(vcpu, part->linear, size, {.is_write = is_write, .is_user = vcpu.privilege_level() == 3});
}

std::expected<GuestOperand, Exception> GuestOperand::find_linear(Vcpu& vcpu, u64 linear, u32 size, WalkAccess access) {
    GuestOperand operand;
    operand.linear_ = linear;
    bool const is_long = (vcpu.efer() & efer::LMA) != 0;
    u32 left = size;
    for (Piece& piece : operand.pieces_) {
        if (left == 0) break;
        u64 const here = linear + (size - left);
        auto const at = translate(vcpu, is_long ? here : here & 0xffff'ffff, access);
        if (!at) return std::unexpected(at.error());
        auto const rest = static_cast<u32>(lib::page_size - here % lib::page_size);
        piece.size = std::min(left, rest);
        piece.at = *at;
        piece.ram = vcpu.vm().ram().pointer(*at, piece.size);
        left -= piece.size;
    }
    return operand;
}

bool GuestOperand::contains(GuestPhys address) const {
    return std::ranges::any_of(pieces_, [&](Piece const& piece) {
        // AMD's AVIC names the register of the APIC, not the byte. [amd/vol2] 15.29.9.2
        u64 const slack = address.value / lib::page_size == apic_base::default_address / lib::page_size ? 15 : 0;
        u64 const from = piece.at.value & ~slack;
        return piece.size != 0 && address.value >= from && address.value < piece.at.value + piece.size;
    });
}

// The piece that holds `size` bytes from `at` on, which becomes an offset in it; nullptr: there is none.
GuestOperand::Piece const* GuestOperand::whole_piece(u32 size, u32& at) const {
    if (at >= pieces_[0].size) {
        at -= pieces_[0].size;
        return &pieces_[1];
    }
    return pieces_[0].size - at >= size ? &pieces_[0] : nullptr;
}

u64 GuestOperand::read(Vcpu& vcpu, u32 size, u32 at) const {
    if (Piece const* const piece = whole_piece(size, at)) {
        if (piece->ram != nullptr) return load(piece->ram + at, size);
        return read_device(vcpu, GuestPhys{piece->at.value + at}, static_cast<u8>(size)) & size_mask(size);
    }
    u64 value = 0;
    for (u32 i = 0; i < size; i++)
        value |= read(vcpu, 1, at + i) << (i * 8);
    return value;
}

void GuestOperand::write(Vcpu& vcpu, u32 size, u64 value, u32 at) const {
    if (Piece const* const piece = whole_piece(size, at)) {
        if (piece->ram != nullptr)
            store(piece->ram + at, size, value);
        else
            write_device(vcpu, GuestPhys{piece->at.value + at}, static_cast<u8>(size), value);
        return;
    }
    for (u32 i = 0; i < size; i++)
        write(vcpu, 1, value >> (i * 8), at + i);
}

void GuestOperand::update(Vcpu& vcpu, u32 size, MmioChange change) const {
    u32 at = 0;
    Piece const* const piece = whole_piece(size, at);
    if (piece != nullptr && piece->ram == nullptr && !is_apic_page(vcpu, piece->at))
        return vcpu.vm().platform().mmio_update(piece->at.value, static_cast<u8>(size), change);
    // Nobody but this vCPU writes to its APIC page.
    u64 value = 0;
    if (change(read(vcpu, size), value)) write(vcpu, size, value);
}

void GuestOperand::set_bits(u32 at, u8 bits) const {
    Piece const* const piece = whole_piece(1, at);
    if (piece->ram != nullptr) __atomic_fetch_or(piece->ram + at, bits, __ATOMIC_SEQ_CST);
}

void GuestOperand::clear_bits(u32 at, u8 bits) const {
    Piece const* const piece = whole_piece(1, at);
    if (piece->ram != nullptr) __atomic_fetch_and(piece->ram + at, static_cast<u8>(~bits), __ATOMIC_SEQ_CST);
}

} // namespace vm
