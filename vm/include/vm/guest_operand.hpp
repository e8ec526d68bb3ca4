// SPDX-License-Identifier: MIT
#pragma once
// Guest memory as the guest's instructions reach it: through a segment and the page tables, with what the CPU checks on
// the way, and devices where there is no RAM. All of this is for the CPU that runs the vCPU, between an exit and the
// next entry. Not checked: alignment (#AC).
#include <array>
#include <expected>
#include <vm/guest_walk.hpp>
#include <vm/vm.hpp>

namespace vm {

// Part of a segment.
struct SegmentPart {
    u64 linear;
    u64 room; // bytes that follow in the segment, those asked for included
};
// The linear address of `size` bytes at `offset`, or the #GP or #SS that the access deserves.
// [intel/vol3] 6.3 to 6.5, [intel/vol1] 3.3.7.1
std::expected<SegmentPart, Exception> through_any_segment(Vcpu& vcpu, SegmentName name, u64 offset, u32 size,
                                                          bool is_write, CpuMode mode);
// The same at once for what has no base: nearly all of 64-bit mode.
inline std::expected<SegmentPart, Exception> through_segment(Vcpu& vcpu, SegmentName name, u64 offset, u32 size,
                                                             bool is_write, CpuMode mode) {
    bool const has_base = mode != CpuMode::Bits64 || name == SegmentName::Fs || name == SegmentName::Gs;
    if (has_base || !is_canonical(offset) || !is_canonical(offset + size - 1)) [[unlikely]]
        return through_any_segment(vcpu, name, offset, size, is_write, mode);
    return SegmentPart{offset, lib::page_size - offset % lib::page_size + lib::page_size};
}

SegmentName name_of(SegmentRegister segment); // DS for None

class GuestOperand {
public:
    // At most a page of a segment, or of linear memory; else the fault. Nothing has been touched except accessed and
    // dirty bits. Update counts as a write.
    static std::expected<GuestOperand, Exception> find(Vcpu& vcpu, SegmentName name, u64 offset, u32 size,
                                                       Access access, CpuMode mode);
    static std::expected<GuestOperand, Exception> find_linear(Vcpu& vcpu, u64 linear, u32 size, WalkAccess access);

    u64 linear() const { return linear_; }
    // Whether the access that the CPU reported at `address` is one to this operand.
    bool contains(GuestPhys address) const;
    bool is_ram() const { return pieces_[0].ram != nullptr && (pieces_[1].size == 0 || pieces_[1].ram != nullptr); }

    // `size` bytes (1, 2, 4 or 8) from byte `at` on. A device sees one access, unless the operand crosses a page there.
    u64 read(Vcpu& vcpu, u32 size, u32 at = 0) const;
    void write(Vcpu& vcpu, u32 size, u64 value, u32 at = 0) const;
    // Reads, and writes what `change` makes of it: at once for a device's register, unless it crosses a page.
    void update(Vcpu& vcpu, u32 size, MmioChange change) const;
    // In one byte of RAM, atomically; elsewhere nothing happens.
    void set_bits(u32 at, u8 bits) const;
    void clear_bits(u32 at, u8 bits) const;

private:
    struct Piece { // in one page
        GuestPhys at{0};
        u8* ram = nullptr; // nullptr: a device, or nothing
        u32 size = 0;
    };
    Piece const* whole_piece(u32 size, u32& at) const;
    u64 linear_ = 0;
    std::array<Piece, 2> pieces_{};
};

} // namespace vm
