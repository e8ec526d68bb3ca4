#include <algorithm>
#include <cstring>
#include <lib/x86/registers.hpp>
#include <vm/guest_walk.hpp>
#include <vm/vm.hpp>

namespace vm {
namespace {

constexpr u64 present = 1, writable = 2, user = 4, large = 0x80;
constexpr u64 frame_64 = 0x000f'ffff'ffff'f000;
constexpr u32 error_present = 1, error_write = 2, error_user = 4;

struct Walk {
    Vcpu& vcpu;
    u64 linear;
    WalkAccess access;
    u64 rights = writable | user; // what all levels grant so far

    std::unexpected<Exception> fault(bool is_present) const {
        u32 const code =
            (is_present ? error_present : 0) | (access.is_write ? error_write : 0) | (access.is_user ? error_user : 0);
        return std::unexpected(Exception{14, true, code, linear});
    }
    // The entry at `table` + index * width, or 0 when there is no RAM: then it is not present.
    u64 entry(u64 table, u64 index, unsigned width) const {
        u8 const* const at = vcpu.vm().ram().pointer(GuestPhys{table + index * width}, width);
        if (at == nullptr) return 0;
        u64 value = 0;
        std::memcpy(&value, at, width);
        return value;
    }
    std::expected<GuestPhys, Exception> finish(u64 base) const {
        if (access.is_checked) {
            bool const write_protected = access.is_user || (vcpu.cr0() & lib::x86::Cr0::WP::mask) != 0;
            if (access.is_user && (rights & user) == 0) return fault(true);
            if (access.is_write && (rights & writable) == 0 && write_protected) return fault(true);
        }
        return GuestPhys{base};
    }
};

std::expected<GuestPhys, Exception> walk_long(Walk& walk, u64 table, unsigned levels, u64 top_index) {
    for (unsigned level = levels;; level--) {
        unsigned const shift = 12 + 9 * (level - 1);
        u64 const index = level == levels ? top_index : (walk.linear >> shift) & 511;
        u64 const entry = walk.entry(table, index, 8);
        if ((entry & present) == 0) return walk.fault(false);
        // PDPTEs of PAE paging carry no rights. [intel/vol3] table 4-8
        if (!(levels == 3 && level == 3)) walk.rights &= entry;
        if (level == 1 || ((entry & large) != 0 && level < levels)) {
            u64 const offset = (u64{1} << shift) - 1;
            return walk.finish((entry & frame_64 & ~offset) | (walk.linear & offset));
        }
        table = entry & frame_64;
    }
}

std::expected<GuestPhys, Exception> walk_32(Walk& walk, u64 cr3, bool has_large_pages) {
    u64 const directory = walk.entry(cr3 & 0xffff'f000, walk.linear >> 22, 4);
    if ((directory & present) == 0) return walk.fault(false);
    walk.rights &= directory;
    if ((directory & large) != 0 && has_large_pages) {
        u64 const high = (directory >> 13 & 0xff) << 32; // PSE-36
        return walk.finish(high | (directory & 0xffc0'0000) | (walk.linear & 0x3f'ffff));
    }
    u64 const page = walk.entry(directory & 0xffff'f000, walk.linear >> 12 & 0x3ff, 4);
    if ((page & present) == 0) return walk.fault(false);
    walk.rights &= page;
    return walk.finish((page & 0xffff'f000) | (walk.linear & 0xfff));
}

} // namespace

std::expected<GuestPhys, Exception> translate(Vcpu& vcpu, u64 linear, WalkAccess access) {
    using lib::x86::Cr0;
    using lib::x86::Cr4;
    if ((vcpu.cr0() & Cr0::PG::mask) == 0) return GuestPhys{linear & 0xffff'ffff};
    Walk walk{vcpu, linear, access};
    u64 const cr3 = vcpu.cr3();
    u64 const cr4 = vcpu.cr4();
    if ((vcpu.efer() & lib::x86::Efer::LMA::mask) != 0) {
        if (!is_canonical(linear)) return std::unexpected(general_protection());
        return walk_long(walk, cr3 & frame_64, 4, linear >> 39 & 511);
    }
    walk.linear = linear & 0xffff'ffff;
    if ((cr4 & Cr4::PAE::mask) != 0) return walk_long(walk, cr3 & 0xffff'ffe0, 3, walk.linear >> 30);
    return walk_32(walk, cr3, (cr4 & Cr4::PSE::mask) != 0);
}

namespace {

// Walks to the code at `linear` and remembers the way.
u8 const* walk_to_code(Vcpu& vcpu, u64 cr3, u64 linear) {
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

} // namespace

u8 const* code_in_place(Vcpu& vcpu, u64 cr3, u64 rip, u32 bytes) {
    if ((rip & (lib::page_size - 1)) > lib::page_size - bytes) return nullptr;
    if (!vcpu.is_64_bit()) return nullptr; // elsewhere CS has a base
    u8 const* const known = vcpu.code_window().find(cr3, rip);
    return known != nullptr ? known : walk_to_code(vcpu, cr3, rip);
}

u32 fetch_code(Vcpu& vcpu, std::array<u8, 16>& bytes) {
    constexpr u32 longest_instruction = 15;
    u64 linear = vcpu.rip();
    if (u8 const* const code = code_in_place(vcpu, vcpu.cr3(), linear, sizeof(bytes))) [[likely]] {
        std::memcpy(bytes.data(), code, bytes.size());
        return longest_instruction;
    }
    if (!vcpu.is_64_bit()) linear = (linear + vcpu.segment(SegmentName::Cs).base) & 0xffff'ffff;
    u32 fetched = 0;
    while (fetched < longest_instruction) {
        auto const at = translate(vcpu, linear + fetched, {false, false, false});
        if (!at) break;
        u64 const in_page = lib::page_size - (at->value & (lib::page_size - 1));
        auto const count = static_cast<u32>(std::min<u64>(longest_instruction - fetched, in_page));
        u8 const* const from = vcpu.vm().ram().pointer(*at, count);
        if (from == nullptr) break;
        std::memcpy(bytes.data() + fetched, from, count);
        fetched += count;
    }
    return fetched;
}

} // namespace vm
