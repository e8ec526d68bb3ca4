// SPDX-License-Identifier: MIT
#include <drivers/microcode.hpp>

#include <cstdint>

#include <lib/byte_view.hpp>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>

namespace drivers {
namespace {

namespace x86 = lib::x86;
using lib::ByteView;
using i32 = std::int32_t;

constexpr u32 IA32_PLATFORM_ID = 0x17, IA32_BIOS_UPDT_TRIG = 0x79, IA32_BIOS_SIGN_ID = 0x8b;
constexpr u32 PATCH_LOADER = 0xc001'0020; // [amd/vol2] appendix A
constexpr u32 hypervisor_bit = 31;        // CPUID 1 ECX

// Sum of all 32-bit words: 0 for a sound update.
u32 sum_of_words(ByteView bytes) {
    u32 sum = 0;
    for (u64 at = 0; at < bytes.size(); at += 4)
        sum += bytes.get32(at);
    return sum;
}

// Revisions of pre-production updates are negative.
bool is_newer(u32 revision, u32 than) { return static_cast<i32>(revision) > static_cast<i32>(than); }

namespace intel {

constexpr u64 header_size = 48, default_data_size = 2000, default_total_size = 2048;
constexpr u64 extended_header_size = 20, extended_entry_size = 12;
constexpr u64 alignment = 16; // of the data, which is what the CPU is told

struct Sizes {
    u64 data;
    u64 total;
};

// Empty if it cannot be an update.
std::optional<Sizes> sizes_of(ByteView rest) {
    if (!rest.has(0, header_size) || rest.get32(0) != 1 || rest.get32(20) != 1) return std::nullopt;
    Sizes sizes{rest.get32(28), rest.get32(32)};
    if (sizes.data == 0) sizes = {default_data_size, default_total_size};
    bool const is_sound = sizes.data % 4 == 0 && sizes.total % 4 == 0 && header_size + sizes.data <= sizes.total &&
                          rest.has(0, sizes.total);
    return is_sound ? std::optional(sizes) : std::nullopt;
}

bool is_for(u32 signature, u32 flags, MicrocodeTarget const& target) {
    return signature == target.signature &&
           ((flags & target.platform_flags) != 0 || (flags == 0 && target.platform_flags == 0));
}

// Further CPUs may be named behind the data.
bool is_for(ByteView update, Sizes sizes, MicrocodeTarget const& target) {
    if (is_for(update.get32(12), update.get32(24), target)) return true;
    ByteView const table = update.from(header_size + sizes.data);
    u64 const count = table.get32(0);
    if (table.size() < extended_header_size || count > (table.size() - extended_header_size) / extended_entry_size)
        return false;
    if (sum_of_words(table.part(0, extended_header_size + count * extended_entry_size)) != 0) return false;
    for (u64 i = 0; i < count; i++) {
        u64 const at = extended_header_size + i * extended_entry_size;
        if (is_for(table.get32(at), table.get32(at + 4), target)) return true;
    }
    return false;
}

std::optional<MicrocodeUpdate> find(ByteView file, MicrocodeTarget const& target) {
    std::optional<MicrocodeUpdate> best;
    for (u64 at = 0; at < file.size();) {
        ByteView const rest = file.from(at);
        auto const sizes = sizes_of(rest);
        if (!sizes) break;
        at += sizes->total;
        ByteView const update = rest.part(0, sizes->total);
        u32 const revision = update.get32(4);
        if (!is_newer(revision, best ? best->revision : target.revision) || !is_for(update, *sizes, target)) continue;
        if (sum_of_words(update.part(0, header_size + sizes->data)) != 0) continue;
        auto const data = update.part(header_size, sizes->data).bytes();
        if (reinterpret_cast<u64>(data.data()) % alignment != 0) continue;
        best = {revision, data};
    }
    return best;
}

} // namespace intel

namespace amd {

constexpr u32 magic = 0x0041'4d44, equivalence_section = 0, patch_section = 1;
constexpr u64 section_header_size = 8, equivalence_size = 16, patch_header_size = 64;

// The number that patches name this CPU by, or 0.
u32 equivalent_of(ByteView table, u32 signature) {
    for (u64 at = 0; table.has(at, equivalence_size) && table.get32(at) != 0; at += equivalence_size)
        if (table.get32(at) == signature) return table.get32(at + 12) & 0xffff;
    return 0;
}

// A patch for a chipset is none for us.
bool is_for(ByteView patch, u32 equivalent) {
    return equivalent != 0 && patch.size() >= patch_header_size && (patch.get32(24) & 0xffff) == equivalent &&
           patch.get32(16) == 0 && patch.get32(20) == 0;
}

std::optional<MicrocodeUpdate> find(ByteView file, MicrocodeTarget const& target) {
    std::optional<MicrocodeUpdate> best;
    u32 equivalent = 0;
    for (u64 at = 0; file.has(at, section_header_size);) {
        if (file.get32(at) == magic) { // the next container
            equivalent = 0;
            at += 4;
            continue;
        }
        u32 const type = file.get32(at);
        u64 const size = file.get32(at + 4);
        at += section_header_size;
        if ((type != equivalence_section && type != patch_section) || !file.has(at, size)) break;
        ByteView const body = file.part(at, size);
        at += size;
        if (type == equivalence_section) {
            equivalent = equivalent_of(body, target.signature);
        } else if (is_for(body, equivalent) && body.get32(4) > (best ? best->revision : target.revision)) {
            best = {body.get32(4), body.bytes()};
        }
    }
    return best;
}

} // namespace amd

void load(MicrocodeUpdate const& update, bool is_amd) {
    u64 const address = reinterpret_cast<u64>(update.bytes.data());
    if (!x86::wrmsr_safe(is_amd ? PATCH_LOADER : IA32_BIOS_UPDT_TRIG, address)) return;
    if (!is_amd) return;
    // Zen 1 and 2 leave translations of the patch behind that must not be used again. [linux/amd-ucode]
    x86::invlpg(address);
    x86::invlpg(address + update.bytes.size() - 1);
}

} // namespace

std::optional<MicrocodeUpdate> find_microcode(std::span<u8 const> file, MicrocodeTarget const& target) {
    return target.is_amd ? amd::find(ByteView(file), target) : intel::find(ByteView(file), target);
}

u32 microcode_revision(bool is_amd) {
    u64 value = 0;
    if (!is_amd) { // CPUID writes it where there is a 0. [intel/vol3] 10.11.7.1
        if (!x86::wrmsr_safe(IA32_BIOS_SIGN_ID, 0)) return 0;
        (void)x86::cpuid(1);
    }
    if (!x86::rdmsr_safe(IA32_BIOS_SIGN_ID, value)) return 0;
    return static_cast<u32>(is_amd ? value : value >> 32);
}

MicrocodeResult update_microcode(std::span<std::span<u8 const> const> files, bool is_amd) {
    u32 const now = microcode_revision(is_amd);
    MicrocodeResult result{.before = now, .after = now};
    auto const leaf = x86::cpuid(1);
    if ((leaf.ecx >> hypervisor_bit & 1) != 0) return result;
    MicrocodeTarget target{.is_amd = is_amd, .signature = leaf.eax, .revision = now};
    u64 platform = 0;
    if (!is_amd && x86::rdmsr_safe(IA32_PLATFORM_ID, platform)) target.platform_flags = 1U << (platform >> 50 & 7);
    std::optional<MicrocodeUpdate> best;
    for (auto const file : files) {
        if (best) target.revision = best->revision;
        if (auto const found = find_microcode(file, target)) best = found;
    }
    if (!best) return result;
    load(*best, is_amd);
    result.after = microcode_revision(is_amd);
    result.was_refused = result.after != best->revision;
    return result;
}

} // namespace drivers
