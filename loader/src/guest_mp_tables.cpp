// SPDX-License-Identifier: MIT
#include "sum_of_bytes.hpp"

#include <array>
#include <lib/bits.hpp>
#include <lib/platform_layout.hpp>
#include <loader/guest_acpi_tables.hpp>
#include <loader/guest_mp_tables.hpp>

namespace loader {
namespace {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

// After the RSDP and the FACS; the pointer must be aligned to 16 bytes within the last 64 KiB below 1 MiB.
constexpr GuestPhys pointer_at = bios_area + 0x80, tables_at = bios_area + 0x90, tables_end = bios_area + 0x1000;
constexpr u32 most_processors = 128;

struct [[gnu::packed]] FloatingPointer { // [mp] 4.1
    std::array<char, 4> signature{'_', 'M', 'P', '_'};
    u32 tables = static_cast<u32>(tables_at.value);
    u8 length = 1; // times 16 bytes
    u8 revision = 4;
    u8 checksum = 0;
    std::array<u8, 5> features{}; // tables follow; no IMCR: virtual-wire mode
};
static_assert(sizeof(FloatingPointer) == 16);

struct [[gnu::packed]] Header { // [mp] 4.2
    std::array<char, 4> signature{'P', 'C', 'M', 'P'};
    u16 length = 0;
    u8 revision = 4;
    u8 checksum = 0;
    std::array<char, 8> oem{'M', 'U', 'L', 'L', 'I', 'O', 'N', ' '};
    std::array<char, 12> product{'V', 'I', 'R', 'T', 'U', 'A', 'L', ' ', 'P', 'C', ' ', ' '};
    u32 oem_table = 0;
    u16 oem_table_size = 0;
    u16 entry_count = 0;
    u32 local_apic = lib::layout::local_apic_base;
    u16 extended_length = 0;
    u8 extended_checksum = 0;
    u8 reserved = 0;
};
static_assert(sizeof(Header) == 44);

struct [[gnu::packed]] Processor { // [mp] 4.3.1
    u8 type = 0, apic_id = 0, apic_version = 0x14, flags = 1;
    u32 signature = 0, features = 0;
    std::array<u32, 2> reserved{};
};
static_assert(sizeof(Processor) == 20);
constexpr u8 is_bootstrap = 1 << 1;

struct [[gnu::packed]] Bus { // [mp] 4.3.2
    u8 type = 1, id = 0;
    std::array<char, 6> name{'I', 'S', 'A', ' ', ' ', ' '};
};
struct [[gnu::packed]] IoApic { // [mp] 4.3.3
    u8 type = 2, id = 0, version = 0x11, flags = 1;
    u32 address = static_cast<u32>(lib::layout::ioapic_base);
};
enum InterruptKind : u8 { Vectored = 0, Nmi = 1, ExtInt = 3 };
struct [[gnu::packed]] Interrupt { // [mp] 4.3.4, 4.3.5
    u8 type = 3, kind = Vectored;
    u16 flags = 0; // as the bus has it
    u8 bus = 0, irq = 0, apic = 0, input = 0;
};
static_assert(sizeof(Bus) == 8 && sizeof(IoApic) == 8 && sizeof(Interrupt) == 8);
constexpr u8 local_interrupt = 4, every_apic = 0xff;
constexpr u16 active_high_level = 0x1 | 0x3 << 2;

class Writer {
public:
    explicit Writer(lib::GuestMemory const& memory) : memory_(memory) {}
    template <typename T> lib::Result<void> add(T const& entry) {
        if (tables_end - at_ < sizeof(T)) return lib::fail(lib::Errc::OutOfRange);
        TRY(memory_.write(at_, entry));
        sum_ = static_cast<u8>(sum_ + sum_of(entry));
        at_ += sizeof(T);
        count_++;
        return {};
    }
    lib::Result<void> finish() {
        Header header;
        header.length = static_cast<u16>(at_ - tables_at);
        header.entry_count = count_;
        header.checksum = static_cast<u8>(-(sum_of(header) + sum_));
        return memory_.write(tables_at, header);
    }
    template <typename T> static u8 sum_of(T const& value) {
        return sum_of_bytes(std::span(reinterpret_cast<u8 const*>(&value), sizeof(T)));
    }

private:
    lib::GuestMemory const& memory_;
    GuestPhys at_ = tables_at + sizeof(Header);
    u8 sum_ = 0;
    u16 count_ = 0;
};

} // namespace

lib::Result<void> write_mp_tables(lib::GuestMemory const& memory, MpConfig const& config) {
    if (config.vcpu_count == 0 || config.vcpu_count > most_processors) return lib::fail(lib::Errc::OutOfRange);
    Writer writer(memory);
    for (u32 id = 0; id < config.vcpu_count; id++)
        TRY(writer.add(Processor{.apic_id = static_cast<u8>(id),
                                 .flags = static_cast<u8>(1 | (id == 0 ? is_bootstrap : 0)),
                                 .signature = config.signature,
                                 .features = config.features}));
    TRY(writer.add(Bus{}));
    TRY(writer.add(IoApic{}));
    TRY(writer.add(Interrupt{.kind = ExtInt})); // the 8259 pair's, on input 0
    for (u8 irq = 0; irq < 16; irq++)
        if (irq != 2) // the cascade
            TRY(writer.add(Interrupt{.flags = irq == lib::layout::sci_gsi ? active_high_level : u16{0},
                                     .irq = irq,
                                     .input = irq == 0 ? static_cast<u8>(lib::layout::pit_gsi) : irq}));
    TRY(writer.add(Interrupt{.type = local_interrupt, .kind = ExtInt, .input = 0}));
    TRY(writer.add(Interrupt{.type = local_interrupt, .kind = Nmi, .apic = every_apic, .input = 1}));
    TRY(writer.finish());
    FloatingPointer pointer;
    pointer.checksum = static_cast<u8>(-Writer::sum_of(pointer));
    return memory.write(pointer_at, pointer);
}

} // namespace loader
