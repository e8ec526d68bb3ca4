// SPDX-License-Identifier: MIT
#include <lib/memory.hpp>
#include <lib/x86/instructions.hpp>
#include <vm/guest_walk.hpp>
#include <vm/vm.hpp>

namespace vm {
namespace {

constexpr u64 present = 1, writable = 2, user = 4, accessed = 0x20, dirty = 0x40, large = 0x80;
constexpr u64 all_rights = present | writable | user;
constexpr u64 frame_64 = 0x000f'ffff'ffff'f000, no_execute = lib::bit(63);
constexpr u32 error_present = 1, error_write = 2, error_user = 4, error_reserved = 8, error_fetch = 0x10,
              error_key = 0x20;
constexpr u64 rflags_ac = lib::bit(18);
constexpr unsigned shift_2m = 21, shift_1g = 30, shift_512g = 39;

// The entries from the root to the page of a linear address.
struct Way {
    std::array<u8*, CodeWindow::levels> slots;
    std::array<u64, CodeWindow::levels> entries;
    unsigned count = 0;
    u64 physical = 0;
    u64 rights = all_rights; // what all levels grant; without `present` one of them ended the walk
    bool forbids_execution = false;
    bool has_reserved_bit = false;
};

// What a CPU refuses in an entry: the bits that must be 0, and whether pages of 1 GiB exist.
struct EntryRules {
    u64 reserved = 0;
    u64 reserved_of_large_32 = 0;
    bool has_pages_1g = true;
};

// The bits of an 8-byte entry that must be 0. [intel/vol3] 4.4.2, 4.5.4
u64 reserved_bits_of(EntryRules const& rules, unsigned shift, bool is_leaf) {
    if (shift == shift_512g || (shift == shift_1g && !rules.has_pages_1g)) return rules.reserved | large;
    if (!is_leaf || shift == 12) return rules.reserved;
    return rules.reserved | (((u64{1} << shift) - 1) & ~u64{0x1fff}); // the address of a large page, except PAT
}

// 4-level paging, or PAE, whose root has four entries without rights. Entries where there is no RAM read as 0, which is
// not present. [intel/vol3] table 4-8
[[gnu::always_inline]] inline void follow_64(GuestRam const& ram, u64 table, u64 linear, unsigned top,
                                             EntryRules const& rules, Way& way) {
    for (unsigned shift = top;; shift -= 9) {
        u8* const at = ram.pointer(GuestPhys{table + (linear >> shift & 511) * 8}, 8);
        u64 const entry = at == nullptr ? 0 : __atomic_load_n(reinterpret_cast<u64 const*>(at), __ATOMIC_RELAXED);
        if ((entry & present) == 0) [[unlikely]] {
            way.rights = 0;
            return;
        }
        bool const is_pae_root = top == shift_1g && shift == shift_1g;
        bool const can_be_large = shift == shift_2m || (shift == shift_1g && !is_pae_root && rules.has_pages_1g);
        bool const is_leaf = shift == 12 || (can_be_large && (entry & large) != 0);
        if (!is_pae_root) { // it is checked when CR3 is loaded
            way.slots[way.count] = at;
            way.entries[way.count++] = entry;
            way.rights &= entry;
            way.forbids_execution |= (entry & no_execute) != 0;
            if ((entry & reserved_bits_of(rules, shift, is_leaf)) != 0) way.has_reserved_bit = true;
        }
        if (way.has_reserved_bit) [[unlikely]]
            return;
        table = entry & frame_64;
        if (!is_leaf) continue;
        u64 const offset = (u64{1} << shift) - 1;
        way.physical = (table & ~offset) | (linear & offset);
        return;
    }
}

void follow_32(GuestRam const& ram, u64 table, u64 linear, bool has_large_pages, EntryRules const& rules, Way& way) {
    for (unsigned shift = 22;; shift -= 10) {
        u8* const at = ram.pointer(GuestPhys{table + (linear >> shift & 0x3ff) * 4}, 4);
        u64 const entry = at == nullptr ? 0 : __atomic_load_n(reinterpret_cast<u32 const*>(at), __ATOMIC_RELAXED);
        if ((entry & present) == 0) {
            way.rights = 0;
            return;
        }
        way.slots[way.count] = at;
        way.entries[way.count++] = entry;
        way.rights &= entry;
        if (shift != 12 && has_large_pages && (entry & large) != 0) {
            way.has_reserved_bit = (entry & rules.reserved_of_large_32) != 0;
            u64 const high = (entry >> 13 & 0xff) << 32; // PSE-36
            way.physical = high | (entry & 0xffc0'0000) | (linear & 0x3f'ffff);
            return;
        }
        table = entry & 0xffff'f000;
        if (shift != 12) continue;
        way.physical = table | (linear & 0xfff);
        return;
    }
}

// `linear` is canonical with 4-level paging.
[[gnu::always_inline]] inline Way follow(GuestRam const& ram, Paging paging, u64 cr3, u64 linear,
                                         EntryRules const& rules) {
    Way way;
    if (paging == Paging::Long) [[likely]] {
        follow_64(ram, cr3 & frame_64, linear, shift_512g, rules, way);
        return way;
    }
    linear &= 0xffff'ffff;
    if (paging == Paging::Off)
        way.physical = linear;
    else if (paging == Paging::Pae)
        follow_64(ram, cr3 & 0xffff'ffe0, linear, shift_1g, rules, way); // the root's index has two bits
    else
        follow_32(ram, cr3 & 0xffff'f000, linear, paging == Paging::Bits32Large, rules, way);
    return way;
}

// Where the code at `linear` is; nullptr: not in RAM. Remembers the way with 4-level paging.
[[gnu::noinline]] u8 const* walk_to_code(Vcpu& vcpu, Paging paging, u64 cr3, u64 linear) {
    if (paging == Paging::Long && !is_canonical(linear)) return nullptr;
    GuestRam const& ram = vcpu.vm().ram();
    Way const way = follow(ram, paging, cr3, linear, {});
    if ((way.rights & present) == 0 || way.has_reserved_bit) return nullptr;
    u64 const offset = way.physical & (lib::page_size - 1);
    u8 const* const page = ram.pointer(GuestPhys{way.physical - offset}, lib::page_size);
    if (page == nullptr) return nullptr;
    if (paging == Paging::Long) {
        std::array<u64 const*, CodeWindow::levels> slots{};
        for (unsigned i = 0; i < way.count; i++)
            slots[i] = reinterpret_cast<u64 const*>(way.slots[i]);
        vcpu.code_window(linear).remember(cr3, linear, page, slots, way.entries, way.count);
    }
    return page + offset;
}

// In long mode, the code at `linear`, which is good to the end of its page.
[[gnu::always_inline]] inline u8 const* find_code(Vcpu& vcpu, u64 cr3, u64 linear) {
    [[clang::uninitialized]] u8 const* known; // written with true
    if (vcpu.code_window(linear).find(cr3, linear, known)) [[likely]]
        return known;
    return walk_to_code(vcpu, Paging::Long, cr3, linear);
}

// The next page of an instruction that crosses into it, or one that begins in the last bytes of its page.
[[gnu::noinline]] u32 fetch_bytewise(Vcpu& vcpu, CodeState const& state, std::array<u8, 16>& bytes) {
    u32 fetched = 0;
    u8 const* from = nullptr;
    for (; fetched < longest_instruction; fetched++, from++) {
        u64 const linear = state.linear + fetched;
        if (from == nullptr || linear % lib::page_size == 0) {
            from = walk_to_code(vcpu, state.paging, state.cr3, linear);
            if (from == nullptr) break;
        }
        bytes[fetched] = *from;
    }
    return fetched;
}

EntryRules entry_rules_of(Vcpu& vcpu, Paging paging, u64 efer_value) {
    CpuidPolicy const& cpuid = vcpu.vm().cpuid();
    u8 const bits = cpuid.rules().physical_bits;
    EntryRules rules;
    rules.has_pages_1g = cpuid.has_pages_1g();
    rules.reserved = reserved_physical_bits(bits) & frame_64;
    if (paging == Paging::Pae) rules.reserved |= 0x7ff0'0000'0000'0000;
    if ((efer_value & efer::NXE) == 0) rules.reserved |= no_execute;
    u8 const bits_32 = bits < 40 ? bits : u8{40};
    rules.reserved_of_large_32 = lib::bit(21) | (((u64{0xff} << (bits_32 - 32)) & 0xff) << 13);
    return rules;
}

// The current guest's PKRU, which is in the CPU. Pages of ours are the supervisor's: PKE means nothing to them.
u32 current_pkru() {
    u64 const host_cr4 = lib::x86::read_cr4();
    lib::x86::write_cr4(host_cr4 | cr4::PKE);
    u32 const value = lib::x86::rdpkru();
    lib::x86::write_cr4(host_cr4);
    return value;
}

// Whether the page's key forbids an access that the rights may allow. [intel/vol3] 4.6.2
bool is_refused_by_key(Vcpu& vcpu, Paging paging, Way const& way, WalkAccess access, u64 cr4_value) {
    if ((cr4_value & cr4::PKE) == 0 || paging != Paging::Long || access.is_fetch || (way.rights & user) == 0)
        return false;
    u64 const key = way.entries[way.count - 1] >> 59 & 15;
    u32 const rights = current_pkru() >> (key * 2);
    bool const obeys = access.is_user || (vcpu.cr0() & cr0::WP) != 0;
    return (rights & 1) != 0 || (access.is_write && obeys && (rights & 2) != 0);
}

// Whether the access is refused. [intel/vol3] 4.6.1
bool is_refused(Vcpu& vcpu, Paging paging, Way const& way, WalkAccess access, u64 cr4_value) {
    if (paging == Paging::Off) return false;
    bool const is_user_page = (way.rights & user) != 0;
    if (access.is_user && !is_user_page) return true;
    bool const is_user_page_for_supervisor = !access.is_user && is_user_page;
    if (access.is_fetch) return way.forbids_execution || (is_user_page_for_supervisor && (cr4_value & cr4::SMEP) != 0);
    if (is_user_page_for_supervisor && (cr4_value & cr4::SMAP) != 0 &&
        (access.is_implicit || (vcpu.rflags() & rflags_ac) == 0))
        return true;
    bool const obeys = access.is_user || (vcpu.cr0() & cr0::WP) != 0;
    return access.is_write && obeys && (way.rights & writable) == 0;
}

// The usual access in 64-bit mode, without judgement: all entries in RAM, present and marked already, all of them
// allowing it, pages of 4 KiB or 2 MiB. Every CPU has 36 address bits or more. False: the long way has to judge.
[[gnu::always_inline]] inline bool find_marked(GuestRam const& ram, u64 cr3, u64 linear, WalkAccess access,
                                               bool are_user_pages_special, bool has_nx, u64& physical) {
    u64 const wanted = present | accessed | (access.is_user ? user : u64{0}) | (access.is_write ? writable : u64{0});
    u64 table = cr3 & frame_64;
    u64 rights = all_rights | accessed;
    u64 any = 0; // the bits of all entries
    for (unsigned shift = shift_512g;; shift -= 9) {
        u64 const entry = ram.load_aligned<u64>(GuestPhys{table + (linear >> shift & 511) * 8});
        rights &= entry;
        any |= entry;
        table = entry & frame_64;
        bool const is_large = shift != 12 && (entry & large) != 0;
        if (shift != 12 && !is_large) continue;
        u64 const offset = (u64{1} << shift) - 1;
        if (is_large && (shift != shift_2m || (table & offset & ~u64{0x1000}) != 0)) return false;
        if ((rights & wanted) != wanted || (access.is_write && (entry & dirty) == 0)) return false;
        if (are_user_pages_special && (rights & user) != 0) return false;
        if (!has_nx && (any & no_execute) != 0) return false;
        physical = (table & ~offset) | (linear & offset);
        return physical >> 36 == 0;
    }
}

// Sets the accessed bits, and the dirty one of the leaf. False: another CPU has changed an entry since the walk.
template <typename Entry> bool mark(Way const& way, bool is_write) {
    for (unsigned i = 0; i < way.count; i++) {
        u64 const bits = is_write && i == way.count - 1 ? accessed | dirty : accessed;
        if ((way.entries[i] & bits) == bits) continue;
        auto expected = static_cast<Entry>(way.entries[i]);
        if (!__atomic_compare_exchange_n(reinterpret_cast<Entry*>(way.slots[i]), &expected,
                                         static_cast<Entry>(expected | bits), false, __ATOMIC_RELAXED,
                                         __ATOMIC_RELAXED))
            return false;
    }
    return true;
}

// The long way, which judges.
[[gnu::noinline]] std::expected<GuestPhys, Exception> translate_any(Vcpu& vcpu, u64 linear, WalkAccess access) {
    u64 const efer_value = vcpu.efer();
    u64 const cr4_value = vcpu.cr4();
    bool const is_long = (efer_value & efer::LMA) != 0;
    Paging const paging = is_long ? Paging::Long : paging_of(vcpu.cr0(), cr4_value);
    EntryRules const rules = entry_rules_of(vcpu, paging, efer_value);
    // Another vCPU may change the tables at this moment. Each look is a walk that a CPU could make; only its marks may
    // be late.
    for (unsigned looks = 0;; looks++) {
        constexpr unsigned most_looks = 8;
        Way const way = follow(vcpu.vm().ram(), paging, vcpu.cr3(), linear, rules);
        bool const is_present = (way.rights & present) != 0;
        bool const by_key =
            is_present && !way.has_reserved_bit && is_refused_by_key(vcpu, paging, way, access, cr4_value);
        if (!is_present || way.has_reserved_bit || by_key || is_refused(vcpu, paging, way, access, cr4_value)) {
            bool const says_fetch = (paging >= Paging::Pae && (efer_value & efer::NXE) != 0) ||
                                    (paging != Paging::Off && (cr4_value & cr4::SMEP) != 0);
            u32 const code = (is_present ? error_present : 0) | (access.is_write ? error_write : 0) |
                             (access.is_user ? error_user : 0) | (way.has_reserved_bit ? error_reserved : 0) |
                             (by_key ? error_key : 0) | (access.is_fetch && says_fetch ? error_fetch : 0);
            return std::unexpected(Exception{14, true, code, is_long ? linear : linear & 0xffff'ffff});
        }
        bool const is_32 = paging == Paging::Bits32 || paging == Paging::Bits32Large;
        if ((is_32 ? mark<u32>(way, access.is_write) : mark<u64>(way, access.is_write)) || looks == most_looks)
            return GuestPhys{way.physical};
    }
}

} // namespace

Paging paging_of(u64 cr0_value, u64 cr4_value) {
    if ((cr0_value & cr0::PG) == 0) return Paging::Off;
    if ((cr4_value & cr4::PAE) != 0) return Paging::Pae;
    return (cr4_value & cr4::PSE) != 0 ? Paging::Bits32Large : Paging::Bits32;
}

std::expected<GuestPhys, Exception> translate(Vcpu& vcpu, u64 linear, WalkAccess access) {
    u64 const efer_value = vcpu.efer();
    u64 const cr4_value = vcpu.cr4();
    bool const is_long = (efer_value & efer::LMA) != 0;
    if (is_long && !is_canonical(linear)) return std::unexpected(general_protection());
    u64 const special = access.is_user ? cr4::PKE : cr4::PKE | cr4::SMAP;
    if (u64 physical = 0; is_long && !access.is_fetch &&
                          find_marked(vcpu.vm().ram(), vcpu.cr3(), linear, access, (cr4_value & special) != 0,
                                      (efer_value & efer::NXE) != 0, physical)) [[likely]]
        return GuestPhys{physical};
    return translate_any(vcpu, linear, access);
}

u8 const* code_in_place(Vcpu& vcpu, u64 cr3, u64 rip, u32 bytes) {
    if (rip % lib::page_size > lib::page_size - bytes) return nullptr;
    return find_code(vcpu, cr3, rip);
}

// Each access to a device comes here, and string instructions for ports do.
[[gnu::always_inline]] u32 fetch_code(Vcpu& vcpu, CodeState const& state, std::array<u8, 16>& bytes) {
    if (state.linear % lib::page_size > lib::page_size - bytes.size()) [[unlikely]]
        return fetch_bytewise(vcpu, state, bytes);
    u8 const* const from = state.paging == Paging::Long ? find_code(vcpu, state.cr3, state.linear)
                                                        : walk_to_code(vcpu, state.paging, state.cr3, state.linear);
    if (from == nullptr) [[unlikely]]
        return 0;
    lib::store(bytes.data(), lib::load<u64>(from));
    lib::store(bytes.data() + 8, lib::load<u64>(from + 8));
    return longest_instruction;
}

} // namespace vm
