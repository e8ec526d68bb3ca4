#include <lib/memory.hpp>
#include <vm/guest_walk.hpp>
#include <vm/vm.hpp>

namespace vm {
namespace {

constexpr u64 present = 1, writable = 2, user = 4, large = 0x80;
constexpr u64 frame_64 = 0x000f'ffff'ffff'f000;
constexpr u32 error_present = 1, error_write = 2, error_user = 4;
constexpr unsigned shift_2m = 21, shift_1g = 30;

// Where a linear address leads, and what all levels grant: without `present` some level ended the walk.
struct Leaf {
    u64 physical;
    u64 rights;
};
constexpr Leaf no_leaf{0, 0};

// Entries where there is no RAM read as 0, which is not present.
template <unsigned Levels> [[gnu::always_inline]] inline Leaf walk_long(GuestRam const& ram, u64 table, u64 linear) {
    constexpr unsigned top = 12 + 9 * (Levels - 1);
    u64 rights = present | writable | user;
#pragma unroll
    for (unsigned shift = top;; shift -= 9) {
        u64 const entry = ram.load_aligned<u64>(GuestPhys{table + (linear >> shift & 511) * 8});
        if ((entry & present) == 0) [[unlikely]]
            return no_leaf;
        // PDPTEs of PAE paging carry no rights. [intel/vol3] table 4-8
        bool const has_rights = Levels == 4 || shift != shift_1g;
        if (has_rights) rights &= entry;
        bool const can_be_large = shift == shift_2m || (shift == shift_1g && Levels == 4);
        if (shift == 12 || (can_be_large && (entry & large) != 0)) {
            u64 const offset = (u64{1} << shift) - 1;
            return {(entry & frame_64 & ~offset) | (linear & offset), rights};
        }
        table = entry & frame_64;
    }
}

Leaf walk_32(GuestRam const& ram, u64 cr3, u64 linear, bool has_large_pages) {
    u64 const directory = ram.load_aligned<u32>(GuestPhys{(cr3 & 0xffff'f000) + (linear >> 22) * 4});
    if ((directory & present) == 0) return no_leaf;
    if ((directory & large) != 0 && has_large_pages) {
        u64 const high = (directory >> 13 & 0xff) << 32; // PSE-36
        return {high | (directory & 0xffc0'0000) | (linear & 0x3f'ffff), directory};
    }
    u64 const page = ram.load_aligned<u32>(GuestPhys{(directory & 0xffff'f000) + (linear >> 12 & 0x3ff) * 4});
    return {(page & 0xffff'f000) | (linear & 0xfff), directory & page};
}

[[gnu::noinline]] Leaf walk_protected(GuestRam const& ram, Paging paging, u64 cr3, u64 linear) {
    linear &= 0xffff'ffff;
    if (paging == Paging::Off) return {linear, present | writable | user};
    // The index of PAE's top level has two bits: the address has no more.
    if (paging == Paging::Pae) return walk_long<3>(ram, cr3 & 0xffff'ffe0, linear);
    return walk_32(ram, cr3, linear, paging == Paging::Bits32Large);
}

[[gnu::always_inline]] inline Leaf walk(GuestRam const& ram, Paging paging, u64 cr3, u64 linear) {
    if (paging == Paging::Long) [[likely]]
        return is_canonical(linear) ? walk_long<4>(ram, cr3 & frame_64, linear) : no_leaf;
    return walk_protected(ram, paging, cr3, linear);
}

// Walks to the code at `linear` and remembers the way.
[[gnu::noinline]] u8 const* walk_to_code(Vcpu& vcpu, u64 cr3, u64 linear) {
    if (!is_canonical(linear)) return nullptr;
    GuestRam const& ram = vcpu.vm().ram();
    std::array<u64 const*, CodeWindow::levels> slots{};
    std::array<u64, CodeWindow::levels> entries{};
    u64 table = cr3 & frame_64;
    for (unsigned count = 0; count < CodeWindow::levels; count++) {
        unsigned const shift = 12 + 9 * (CodeWindow::levels - 1 - count);
        u8 const* const at = ram.pointer(GuestPhys{table + (linear >> shift & 511) * 8}, 8);
        if (at == nullptr) return nullptr;
        slots[count] = reinterpret_cast<u64 const*>(at);
        u64 const entry = __atomic_load_n(slots[count], __ATOMIC_RELAXED);
        entries[count] = entry;
        if ((entry & present) == 0) return nullptr;
        table = entry & frame_64;
        if (shift == 12 || ((entry & large) != 0 && count > 0)) {
            u64 const offset = (u64{1} << shift) - 1;
            u64 const page = ((table & ~offset) | (linear & offset)) & ~(lib::page_size - 1);
            u8 const* const code = ram.pointer(GuestPhys{page}, lib::page_size);
            if (code == nullptr) return nullptr;
            vcpu.code_window().remember(cr3, linear, code, slots, entries, count + 1);
            return code + (linear & (lib::page_size - 1));
        }
    }
    return nullptr;
}

// In long mode, the code at `linear`, which is good to the end of its page.
[[gnu::always_inline]] inline u8 const* find_code(Vcpu& vcpu, u64 cr3, u64 linear) {
    u8 const* const known = vcpu.code_window().find(cr3, linear);
    return known != nullptr ? known : walk_to_code(vcpu, cr3, linear);
}

u8 const* find_protected_code(Vcpu& vcpu, CodeState const& state) {
    Leaf const leaf = walk_protected(vcpu.vm().ram(), state.paging, state.cr3, state.linear);
    return (leaf.rights & present) != 0 ? vcpu.vm().ram().pointer(GuestPhys{leaf.physical}, 1) : nullptr;
}

// The next page of an instruction that crosses into it, or one that begins in the last bytes of its page.
[[gnu::noinline]] u32 fetch_bytewise(GuestRam const& ram, CodeState const& state, std::array<u8, 16>& bytes) {
    u32 fetched = 0;
    u8 const* from = nullptr;
    for (; fetched < longest_instruction; fetched++, from++) {
        u64 const linear = state.linear + fetched;
        if (from == nullptr || linear % lib::page_size == 0) {
            Leaf const leaf = walk(ram, state.paging, state.cr3, linear);
            from = (leaf.rights & present) != 0 ? ram.pointer(GuestPhys{leaf.physical}, 1) : nullptr;
            if (from == nullptr) break;
        }
        bytes[fetched] = *from;
    }
    return fetched;
}

} // namespace

Paging paging_of(u64 cr0_value, u64 cr4_value) {
    if ((cr0_value & cr0::PG) == 0) return Paging::Off;
    if ((cr4_value & cr4::PAE) != 0) return Paging::Pae;
    return (cr4_value & cr4::PSE) != 0 ? Paging::Bits32Large : Paging::Bits32;
}

std::expected<GuestPhys, Exception> translate(Vcpu& vcpu, u64 linear, WalkAccess access) {
    bool const is_long = (vcpu.efer() & efer::LMA) != 0;
    if (is_long && !is_canonical(linear)) return std::unexpected(general_protection());
    u64 const cr0_value = vcpu.cr0();
    Paging const paging = is_long ? Paging::Long : paging_of(cr0_value, vcpu.cr4());
    Leaf const leaf = walk(vcpu.vm().ram(), paging, vcpu.cr3(), linear);
    bool const is_present = (leaf.rights & present) != 0;
    bool const obeys_write = access.is_user || (cr0_value & cr0::WP) != 0;
    bool const is_refused = access.is_checked && ((access.is_user && (leaf.rights & user) == 0) ||
                                                  (access.is_write && (leaf.rights & writable) == 0 && obeys_write));
    if (!is_present || is_refused) {
        u32 const code =
            (is_present ? error_present : 0) | (access.is_write ? error_write : 0) | (access.is_user ? error_user : 0);
        return std::unexpected(Exception{14, true, code, is_long ? linear : linear & 0xffff'ffff});
    }
    return GuestPhys{leaf.physical};
}

u8 const* code_in_place(Vcpu& vcpu, u64 cr3, u64 rip, u32 bytes) {
    if (rip % lib::page_size > lib::page_size - bytes) return nullptr;
    if (!vcpu.is_64_bit()) return nullptr; // elsewhere CS has a base
    return find_code(vcpu, cr3, rip);
}

u32 fetch_code(Vcpu& vcpu, CodeState const& state, std::array<u8, 16>& bytes) {
    if (state.linear % lib::page_size > lib::page_size - bytes.size()) [[unlikely]]
        return fetch_bytewise(vcpu.vm().ram(), state, bytes);
    u8 const* const from =
        state.paging == Paging::Long ? find_code(vcpu, state.cr3, state.linear) : find_protected_code(vcpu, state);
    if (from == nullptr) [[unlikely]]
        return 0;
    lib::store(bytes.data(), lib::load<u64>(from));
    lib::store(bytes.data() + 8, lib::load<u64>(from + 8));
    return longest_instruction;
}

} // namespace vm
