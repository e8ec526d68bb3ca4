// SPDX-License-Identifier: MIT
// State changes and interrupt delivery. Register accesses are in local_apic_registers.cpp.
#include <vm/local_apic.hpp>

namespace vm {

using namespace apic_reg;

namespace {
constexpr u32 x2apic_logical_id(u32 id) { return (id >> 4) << 16 | u32{1} << (id & 15); }
constexpr u32 version = 0x14 | 5U << 16; // integrated APIC, six LVT entries
} // namespace

LocalApic::LocalApic(LocalApicConfig const& config, ApicPage& page, ApicBus& bus)
    : id_(config.id), page_(page), bus_(bus), timer_(bus, config.crystal.multiplier, config.minimum_timer_period),
      config_(config) {
    reset();
}

void LocalApic::reset() {
    base_ = apic_base::default_address | apic_base::EN | (config_.is_bootstrap ? apic_base::BSP : 0);
    reset_registers();
    enter_mode(Mode::XApic);
}

void LocalApic::init_signal() {
    reset_registers();
    enter_mode(mode());
}

// [intel/vol3] 12.4.7.1
void LocalApic::reset_registers() {
    timer_.reset();
    discard_posted();
    for (u32& word : page_.words)
        word = 0;
    page_[VERSION] = version;
    page_[DFR] = ~u32{0};
    page_[SVR] = 0xff;
    for (u32 lvt : {LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR})
        page_[lvt] = lvt_masked;
    irr_summary_ = 0;
    isr_classes_ = 0;
    software_enabled_ = false;
    error_pending_ = 0;
}

void LocalApic::enter_mode(Mode mode) {
    mode_.store(mode, std::memory_order_relaxed);
    page_[ID] = mode == Mode::X2Apic ? id_ : id_ << 24;
    if (mode == Mode::X2Apic) page_[LDR] = x2apic_logical_id(id_);
    publish_logical_id();
}

void LocalApic::publish_logical_id() {
    bool const x2apic = mode() == Mode::X2Apic;
    logical_id_.store(x2apic ? page_[LDR] : page_[LDR] >> 24, std::memory_order_relaxed);
    is_flat_.store(page_[DFR] >> 28 == 0xf, std::memory_order_relaxed);
}

// Legal transitions: disabled <-> xAPIC -> x2APIC -> disabled. [intel/vol3] 12.12.5
MsrResult LocalApic::write_base(u64 value) {
    u64 const reserved = reserved_physical_bits(config_.physical_bits) | 0x2ff;
    if ((value & reserved) != 0) return MsrResult::GeneralProtection;
    bool const enabled = (value & apic_base::EN) != 0;
    bool const extended = (value & apic_base::EXTD) != 0;
    if (extended && (!enabled || !config_.has_x2apic)) return MsrResult::GeneralProtection;
    Mode const wanted = !enabled ? Mode::Disabled : extended ? Mode::X2Apic : Mode::XApic;
    Mode const now = mode();
    if (now == Mode::X2Apic && wanted == Mode::XApic) return MsrResult::GeneralProtection;
    if (now == Mode::Disabled && wanted == Mode::X2Apic) return MsrResult::GeneralProtection;
    base_ = value;
    if (wanted == now) return MsrResult::Done;
    if (wanted == Mode::Disabled) reset_registers(); // re-enabled, it is as after power-on
    enter_mode(wanted);
    return MsrResult::Done;
}

// [intel/vol3] 12.6.2, 12.12.10.2
bool LocalApic::matches(u32 destination, bool logical) const {
    Mode const mode = this->mode();
    if (mode == Mode::Disabled) return false;
    if (destination == apic_broadcast) return true;
    if (!logical) return destination == id_;
    u32 const mine = logical_id_.load(std::memory_order_relaxed);
    if (mode == Mode::X2Apic) return destination >> 16 == mine >> 16 && (destination & mine & 0xffff) != 0;
    if (destination > 0xff) return false;
    if (is_flat_.load(std::memory_order_relaxed)) return (destination & mine) != 0;
    u32 const cluster = destination >> 4;
    return (cluster == mine >> 4 || cluster == 0xf) && (destination & mine & 0xf) != 0;
}

void LocalApic::accept(u8 vector, TriggerMode trigger) {
    if (vector < 16) [[unlikely]]
        return error(Error::ReceiveIllegalVector);
    if (!software_enabled_) return;
    u32 const offset = (vector / 32U) * 16;
    u32 const mask = ApicPage::vector_bit(vector);
    u32& tmr = page_[TMR + offset];
    tmr = trigger == TriggerMode::Level ? tmr | mask : tmr & ~mask;
    page_.shared(IRR + offset).fetch_or(mask, std::memory_order_relaxed);
    irr_summary_ |= static_cast<u8>(1U << (vector / 32U));
    bus_.interrupt_pending(*this);
}

bool LocalApic::merge_outstanding() {
    // The descriptor first: a vector that is in both keeps its level trigger, and so its EOI.
    bool const taken = descriptor_ != nullptr && merge(*descriptor_);
    return merge(pending_) || taken;
}

void LocalApic::discard_posted() {
    pending_.discard();
    if (descriptor_ != nullptr) descriptor_->discard();
}

bool LocalApic::merge(PendingInterrupts& from) {
    from.begin_take();
    bool changed = false;
    for (u32 i = 0; i < 4; ++i) {
        u64 taken = from.take(i);
        if (taken == 0) continue;
        if (i == 0 && (taken & 0xffff) != 0) {
            error(Error::ReceiveIllegalVector);
            taken &= ~u64{0xffff};
        }
        if (!software_enabled_) continue; // refused, as on the bus
        u64 const level = from.level[i].load(std::memory_order_relaxed);
        for (u32 half = 0; half < 2; ++half) {
            u32 const word = static_cast<u32>(taken >> (32 * half));
            if (word == 0) continue;
            u32 const number = i * 2 + half;
            u32& tmr = page_[TMR + number * 16];
            tmr = (tmr & ~word) | (word & static_cast<u32>(level >> (32 * half)));
            page_.shared(IRR + number * 16).fetch_or(word, std::memory_order_relaxed);
            irr_summary_ |= static_cast<u8>(1U << number);
            changed = true;
        }
    }
    return changed;
}

void LocalApic::local_interrupt(u32 lvt) {
    u32 const entry = page_[lvt];
    if ((entry & lvt_masked) == 0) accept(static_cast<u8>(entry), TriggerMode::Edge);
}

bool LocalApic::nmi_line() {
    if (mode() == Mode::Disabled) return true; // the pins are INTR and NMI then
    u32 const entry = page_[LVT_LINT1];
    if ((entry & lvt_masked) != 0) return false;
    u32 const delivery = (entry >> 8) & 7;
    if (delivery == static_cast<u32>(DeliveryMode::Fixed)) accept(static_cast<u8>(entry), TriggerMode::Edge);
    return delivery == static_cast<u32>(DeliveryMode::Nmi);
}

void LocalApic::timer_expired() {
    if (timer_.expire()) local_interrupt(LVT_TIMER);
}

// Counted once until software clears ESR, so that a bad vector in the error entry itself cannot recurse.
// [intel/vol3] 12.5.3
void LocalApic::error(Error what) {
    u8 const mask = static_cast<u8>(1U << static_cast<u8>(what));
    if ((error_pending_ & mask) != 0) return;
    error_pending_ |= mask;
    local_interrupt(LVT_ERROR);
}

void LocalApic::set_virtualized(bool on) {
    is_virtualized_ = on;
    irr_summary_ = 0;
    isr_classes_ = 0;
    for (u32 i = 0; i < 8; ++i) {
        if (page_[IRR + i * 16] != 0) irr_summary_ |= static_cast<u8>(1U << i);
        u32& isr = page_[ISR + i * 16];
        u32 kept = 0; // of each class the highest: the hardware nests by class like we do and never has more
        for (u32 half = 0; half < 2; ++half) {
            u32 const of_class = isr & 0xffffU << (16 * half);
            if (of_class == 0) continue;
            u32 const index = highest_bit(of_class);
            kept |= 1U << index;
            isr_classes_ |= static_cast<u16>(1U << (2 * i + half));
            in_service_[2 * i + half] = static_cast<u8>(i * 32 + index);
        }
        isr = kept;
    }
    page_[PPR] = processor_priority();
}

} // namespace vm
