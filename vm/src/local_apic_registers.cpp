// SPDX-License-Identifier: MIT
// Register accesses of the local APIC: xAPIC MMIO, x2APIC MSRs, APIC-write exits.
#include <bit>
#include <vm/local_apic.hpp>

namespace vm {

using namespace apic_reg;

namespace {

// Sets of registers, one bit per 16 bytes.
constexpr u64 reg(u32 offset) { return bit(offset >> 4); }
constexpr u64 vectors(u32 offset) { return u64{0xff} << (offset >> 4); }
constexpr u64 lvts =
    reg(LVT_TIMER) | reg(LVT_THERMAL) | reg(LVT_PERFORMANCE) | reg(LVT_LINT0) | reg(LVT_LINT1) | reg(LVT_ERROR);
constexpr u64 common_read = reg(ID) | reg(VERSION) | reg(TPR) | reg(PPR) | reg(LDR) | reg(SVR) | vectors(ISR) |
                            vectors(TMR) | vectors(IRR) | reg(ESR) | reg(ICR_LOW) | lvts | reg(INITIAL_COUNT) |
                            reg(CURRENT_COUNT) | reg(DIVIDE);
constexpr u64 xapic_read = common_read | reg(APR) | reg(EOI) | reg(RRD) | reg(DFR) | reg(ICR_HIGH);
constexpr u64 common_write =
    reg(TPR) | reg(EOI) | reg(SVR) | reg(ESR) | reg(ICR_LOW) | lvts | reg(INITIAL_COUNT) | reg(DIVIDE);
constexpr u64 x2apic_write = common_write | reg(SELF_IPI);
constexpr u64 xapic_write = common_write | reg(LDR) | reg(DFR) | reg(ICR_HIGH);

constexpr u32 icr_writable = 0x000c'cfff;
constexpr u32 svr_writable = 0x1ff;

// What of an LVT entry can be written, and what is read-only but not reserved. [intel/vol3] 12.5.1
struct LvtBits {
    u32 writable;
    u32 read_only;
};
constexpr LvtBits lvt_bits(u32 offset) {
    switch (offset) {
    case LVT_TIMER: return {0x0007'00ff, 0x1000};
    case LVT_LINT0:
    case LVT_LINT1: return {0x0001'a7ff, 0x5000};
    case LVT_ERROR: return {0x0001'00ff, 0x1000};
    default: return {0x0001'07ff, 0x1000}; // thermal, performance counters
    }
}

// Bits that WRMSR may set; anything else is #GP. [intel/vol3] table 12-6
constexpr u32 x2apic_valid_bits(u32 offset) {
    if ((lvts & reg(offset)) != 0) return lvt_bits(offset).writable | lvt_bits(offset).read_only;
    switch (offset) {
    case TPR:
    case SELF_IPI: return 0xff;
    case SVR: return svr_writable;
    case INITIAL_COUNT: return ~u32{0};
    case DIVIDE: return 0xb;
    default: return 0; // EOI, ESR
    }
}

// The bits of a register that are more than a constant or a copy.
constexpr u32 kept_bits(u32 offset, bool is_x2apic) {
    if (offset >= ISR && offset < ESR) return (offset & 0x7f) == 0 ? 0xffff'0000 : ~u32{0}; // no vector below 16
    if (offset <= LVT_ERROR && (lvts & reg(offset)) != 0) return lvt_bits(offset).writable;
    switch (offset) {
    case TPR:
    case ESR: return 0xff;
    case LDR: return is_x2apic ? 0 : 0xff00'0000;
    case SVR: return svr_writable;
    case ICR_LOW: return icr_writable;
    case ICR_HIGH: return is_x2apic ? ~u32{0} : 0xff00'0000;
    case DFR:
    case INITIAL_COUNT: return ~u32{0};
    case DIVIDE: return 0xb;
    default: return 0;
    }
}

// Of a word of ISR, whether no two vectors are of one class: each interrupts only lower ones.
constexpr bool is_nested(u32 word) { return std::popcount(word & 0xffffU) <= 1 && std::popcount(word >> 16) <= 1; }

} // namespace

LocalApic::State LocalApic::save() const {
    State state{};
    state.base = base_;
    for (u32 i = 0; i < state.registers.size(); i++)
        state.registers[i] = page_[i * 16] & kept_bits(i * 16, mode() == Mode::X2Apic);
    state.timer = timer_.save();
    state.errors = error_pending_;
    return state;
}

LocalApic::Mode LocalApic::mode_of(u64 base) const {
    if ((base & apic_base::EN) == 0) return Mode::Disabled;
    return (base & apic_base::EXTD) != 0 ? Mode::X2Apic : Mode::XApic;
}

bool LocalApic::is_valid(State const& state, Mode mode) const {
    u64 const reserved = reserved_physical_bits(config_.physical_bits) | 0x2ff;
    if ((state.base & reserved) != 0) return false;
    if ((state.base & apic_base::EXTD) != 0 && (mode != Mode::X2Apic || !config_.has_x2apic)) return false;
    auto const at = [&](u32 offset) { return state.registers[offset / 16]; };
    for (u32 i = 0; i < state.registers.size(); i++)
        if ((state.registers[i] & ~kept_bits(i * 16, mode == Mode::X2Apic)) != 0) return false;
    for (u32 offset = ISR; offset < TMR; offset += 16)
        if (!is_nested(at(offset))) return false;
    if ((at(DFR) | 0x0fff'ffff) != at(DFR)) return false;
    if (!config_.has_tsc_deadline && (at(LVT_TIMER) >> 18 & 1) != 0) return false;
    for (u32 lvt : {LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR})
        if ((at(SVR) & 0x100) == 0 && (at(lvt) & lvt_masked) == 0) return false;
    return at(INITIAL_COUNT) == state.timer.initial_count;
}

lib::Result<void> LocalApic::restore(State const& state) {
    Mode const mode = mode_of(state.base);
    if (!is_valid(state, mode)) return lib::fail(lib::Errc::BadFormat);
    reset_registers();
    auto const at = [&](u32 offset) { return state.registers[offset / 16]; };
    TRY(timer_.restore(state.timer, static_cast<ApicTimer::Mode>(at(LVT_TIMER) >> 17 & 3), at(DIVIDE)));
    base_ = state.base;
    for (u32 i = 0; i < state.registers.size(); i++)
        if (kept_bits(i * 16, mode == Mode::X2Apic) != 0) page_[i * 16] = state.registers[i];
    software_enabled_ = (at(SVR) & 0x100) != 0;
    error_pending_ = state.errors;
    enter_mode(mode);
    set_virtualized(is_virtualized_); // what is derived from the page
    bus_.destination_changed(*this);
    bus_.interrupt_pending(*this);
    return {};
}

u64 LocalApic::mmio_read(u32 offset, u8 size) {
    u32 const base = offset & 0xff0;
    u32 const within = offset & 0xf;
    if (within >= 4) return 0;
    if (base >= 0x400 || (xapic_read & reg(base)) == 0) {
        error(Error::IllegalRegister);
        return 0;
    }
    u64 const value = u64{read_register(base)} >> (8 * within);
    return size >= 4 ? value : value & ((u64{1} << (8 * size)) - 1);
}

void LocalApic::mmio_write(u32 offset, u8 size, u64 value) {
    if (size != 4 || (offset & 0xf) != 0) return;
    offset &= 0xff0;
    if (offset == EOI) return end_of_interrupt();
    if (offset >= 0x400) return error(Error::IllegalRegister);
    if ((xapic_write & reg(offset)) == 0) {
        // Read-only registers swallow writes; what does not exist is an error.
        if ((xapic_read & reg(offset)) == 0) error(Error::IllegalRegister);
        return;
    }
    write_register(offset, static_cast<u32>(value));
}

MsrResult LocalApic::read_x2apic(u32 index, u64& value) {
    u32 const number = index - msr::IA32_X2APIC_FIRST;
    if (mode() != Mode::X2Apic || number >= 64 || (common_read & bit(number)) == 0) return MsrResult::GeneralProtection;
    u32 const offset = number << 4;
    value = read_register(offset);
    if (offset == ICR_LOW) value |= u64{page_[ICR_HIGH]} << 32;
    return MsrResult::Done;
}

MsrResult LocalApic::write_x2apic_register(u32 number, u64 value) {
    if (number == ICR_LOW >> 4) {
        if ((value & 0xffff'ffff & ~u64{icr_writable}) != 0) return MsrResult::GeneralProtection;
        page_[ICR_HIGH] = static_cast<u32>(value >> 32);
        write_icr(static_cast<u32>(value), static_cast<u32>(value >> 32));
        return MsrResult::Done;
    }
    if (number >= 64 || (x2apic_write & bit(number)) == 0) return MsrResult::GeneralProtection;
    u32 const offset = number << 4;
    if ((value & ~u64{x2apic_valid_bits(offset)}) != 0) return MsrResult::GeneralProtection;
    write_register(offset, static_cast<u32>(value));
    return MsrResult::Done;
}

void LocalApic::apic_write(u32 offset) {
    offset &= 0xff0;
    if (offset >= 0x400) return;
    u32 const value = page_[offset];
    if (offset == EOI) {
        if (!is_virtualized_) end_of_interrupt();
        return;
    }
    bool const x2apic = mode() == Mode::X2Apic;
    if (((x2apic ? x2apic_write : xapic_write) & reg(offset)) != 0) return write_register(offset, value);
    // The hardware let a write through to a register that has none: put back what can be known.
    if (offset == ID) page_[ID] = x2apic ? id_ : id_ << 24;
}

u32 LocalApic::read_register(u32 offset) {
    switch (offset) {
    case PPR: return is_virtualized_ ? page_[PPR] : processor_priority();
    case CURRENT_COUNT: return timer_.current_count();
    case EOI: return 0; // write-only
    default: return page_[offset];
    }
}

void LocalApic::write_register(u32 offset, u32 value) {
    if ((lvts & reg(offset)) != 0) return write_lvt(offset, value);
    switch (offset) {
    case TPR:
        set_task_priority(static_cast<u8>(value));
        return bus_.interrupt_pending(*this); // what a higher one held back
    case LDR:
    case DFR:
        page_[offset] = offset == LDR ? value & 0xff00'0000 : value | 0x0fff'ffff;
        publish_logical_id();
        return bus_.destination_changed(*this);
    case SVR: return write_svr(value);
    case ESR: return write_esr();
    case ICR_HIGH: page_[ICR_HIGH] = value & 0xff00'0000; return;
    case ICR_LOW: {
        bool const logical = (value & 0x800) != 0;
        return write_icr(value, bus_destination(static_cast<u8>(page_[ICR_HIGH] >> 24), logical));
    }
    case INITIAL_COUNT:
        timer_.set_initial_count(value);
        page_[INITIAL_COUNT] = timer_.mode() >= ApicTimer::Mode::Deadline ? 0 : value;
        return;
    case DIVIDE: page_[DIVIDE] = value & 0xb; return timer_.set_divide(value);
    case SELF_IPI: page_[SELF_IPI] = 0; return accept(static_cast<u8>(value), TriggerMode::Edge);
    default: return;
    }
}

void LocalApic::write_svr(u32 value) {
    merge_posted(); // what came before the switch is judged by its old position
    page_[SVR] = value & svr_writable;
    software_enabled_ = (value & 0x100) != 0;
    bus_.destination_changed(*this);
    if (software_enabled_) return;
    for (u32 lvt : {LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR})
        page_[lvt] |= lvt_masked;
}

void LocalApic::write_lvt(u32 offset, u32 value) {
    value &= lvt_bits(offset).writable;
    if (offset == LVT_TIMER) {
        if (!config_.has_tsc_deadline) value &= ~(1U << 18);
        timer_.set_mode(static_cast<ApicTimer::Mode>((value >> 17) & 3));
        if (timer_.mode() >= ApicTimer::Mode::Deadline) page_[INITIAL_COUNT] = 0;
    }
    page_[offset] = software_enabled_ ? value : value | lvt_masked;
    if (offset == LVT_LINT0) bus_.interrupt_pending(*this); // the 8259 pair's may wait behind it
}

// The write latches what was detected since the last one; the value does not matter. [intel/vol3] 12.5.3
void LocalApic::write_esr() {
    page_[ESR] = error_pending_;
    error_pending_ = 0;
}

// [intel/vol3] 12.6.1, table 12-3
void LocalApic::write_icr(u32 low, u32 destination) {
    page_[ICR_LOW] = low & icr_writable;
    if ((low & 0xc0700) == 0x40000 && (low & 0xf0) != 0)
        return accept(static_cast<u8>(low), TriggerMode::Edge); // fixed, to itself
    auto const mode = static_cast<DeliveryMode>((low >> 8) & 7);
    auto const shorthand = static_cast<Shorthand>((low >> 18) & 3);
    u8 const vector = static_cast<u8>(low);
    bool const fixed = mode == DeliveryMode::Fixed;
    if (fixed || mode == DeliveryMode::LowestPriority) {
        if (vector < 16) return error(Error::SendIllegalVector);
    } else {
        // To itself a CPU sends only fixed interrupts; SMI, ExtINT and remote read go nowhere; neither does the INIT
        // level de-assert that only the first APICs knew.
        if (mode != DeliveryMode::Nmi && mode != DeliveryMode::Init && mode != DeliveryMode::StartUp) return;
        if (mode == DeliveryMode::Init && (low & 0xc000) == 0x8000) return;
    }
    if (shorthand == Shorthand::Self) return;
    if (shorthand == Shorthand::AllIncludingSelf && !fixed) return;
    bus_.send_ipi(*this, {vector, mode, shorthand, (low & 0x800) != 0, destination});
}

} // namespace vm
