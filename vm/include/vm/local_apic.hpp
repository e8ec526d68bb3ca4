// SPDX-License-Identifier: MIT
#pragma once
// The local APIC of a vCPU, xAPIC and x2APIC. [intel/vol3] chapter 12
// Not supported: moving the MMIO page (IA32_APIC_BASE keeps the address it is given, the page stays at FEE00000h),
// writing the APIC id, EOI-broadcast suppression, CMCI, remote read, SMI, focus checking, LINT0 in a mode other than
// ExtINT, sending ExtINT.
//
// Only the CPU that runs the vCPU calls it, except post(), matches() and physical_id(), which any CPU may.
#include <lib/result.hpp>
#include <vm/apic_timer.hpp>
#include <vm/msr_policy.hpp>
#include <vm/pending_interrupts.hpp>

namespace vm {

class LocalApic;

enum class DeliveryMode : u8 { Fixed, LowestPriority, Smi, Reserved, Nmi, Init, StartUp, ExtInt };
enum class Shorthand : u8 { None, Self, AllIncludingSelf, AllExcludingSelf };

inline constexpr u32 apic_broadcast = ~u32{0};

// Destination as a bus message carries it (IOAPIC, MSI, xAPIC ICR): 8 bits, of which FFh physical reaches everybody.
constexpr u32 bus_destination(u8 destination, bool logical) {
    return !logical && destination == 0xff ? apic_broadcast : destination;
}

// A decoded ICR write that concerns other APICs or is more than a fixed interrupt to oneself. Already legal: a fixed
// vector is at least 16, only fixed interrupts reach the sender itself by shorthand.
struct IpiRequest {
    u8 vector;
    DeliveryMode mode; // Fixed, LowestPriority, Nmi, Init or StartUp
    Shorthand shorthand;
    bool logical;
    u32 destination; // with Shorthand::None
};

class ApicBus : public TimerHost {
public:
    virtual void send_ipi(LocalApic& from, IpiRequest const& request) = 0;
    virtual void end_of_interrupt(u8 vector) = 0; // of a level-triggered interrupt: for the IOAPIC
    // IRR has something new, or something whose turn may have come by an EOI, the TPR or LINT0; not called for
    // merge_posted(). After every write of the TPR: a backend may keep a copy.
    virtual void interrupt_pending(LocalApic& at) = 0;
    // Which interrupts the APIC accepts was changed by a write of its own: of LDR, DFR or SVR.
    virtual void destination_changed(LocalApic&) {}

protected:
    ~ApicBus() = default;
};

struct LocalApicConfig {
    u32 id = 0; // at most 254
    bool is_bootstrap = false;
    bool has_x2apic = true;
    bool has_tsc_deadline = true;
    u8 physical_bits = 36;
    CrystalClock crystal{};
    u64 minimum_timer_period = 0; // in TSC ticks
};

class alignas(64) LocalApic {
public:
    enum class Mode : u8 { Disabled, XApic, X2Apic };

    // `page` is 4 KiB of its own, which the hardware may be pointed at. It is overwritten.
    LocalApic(LocalApicConfig const& config, ApicPage& page, ApicBus& bus);
    LocalApic(LocalApic const&) = delete;
    LocalApic& operator=(LocalApic const&) = delete;

    void reset();       // power-on: everything
    void init_signal(); // INIT: everything but IA32_APIC_BASE and the id

    // Offsets within the page; sizes 1, 2, 4, 8. Reads beside a register's four bytes are zero, writes other than 4
    // aligned bytes are dropped: the manual leaves both undefined.
    u64 mmio_read(u32 offset, u8 size);
    void mmio_write(u32 offset, u8 size, u64 value);
    MsrResult read_x2apic(u32 index, u64& value);
    MsrResult write_x2apic(u32 index, u64 value);
    u64 read_base() const { return base_; }
    MsrResult write_base(u64 value);

    Mode mode() const { return mode_.load(std::memory_order_relaxed); }
    bool is_software_enabled() const { return software_enabled_; }
    ApicPage& page() { return page_; }
    // A second set of posted interrupts, all edge-triggered, that the hardware takes from too; nullptr: none.
    void set_descriptor(PendingInterrupts* descriptor) { descriptor_ = descriptor; }
    PendingInterrupts* descriptor() const { return descriptor_; }
    bool is_anything_posted() const {
        return !pending_.is_empty() || (descriptor_ != nullptr && !descriptor_->is_empty());
    }

    // --- saved and restored by the owner, which merges what was posted before it saves. A saved state has bits that
    // have a meaning, and no others. One with others is refused (BadFormat), and then the APIC must be reset.
    struct State {
        u64 base;                      // IA32_APIC_BASE
        std::array<u32, 64> registers; // of the page, one for each 16 bytes
        ApicTimer::State timer;
        u8 errors; // that ESR shows after it is written next
        u8 reserved[7];
    };
    State save() const;
    lib::Result<void> restore(State const& state);

    // --- any CPU
    bool post(u8 vector, TriggerMode trigger) { return pending_.post(vector, trigger); } // true: notify the owner
    u32 physical_id() const { return id_; }
    bool matches(u32 destination, bool logical) const;
    u32 logical_id() const { return logical_id_.load(std::memory_order_relaxed); } // xAPIC: 8 bits
    bool is_flat() const { return is_flat_.load(std::memory_order_relaxed); }

    // --- delivery, by the owner
    void accept(u8 vector, TriggerMode trigger);
    bool merge_posted() { return is_anything_posted() && merge_outstanding(); } // true: IRR may have changed
    int highest_pending() const {                                               // deliverable now, or -1
        if (irr_summary_ == 0) return -1;
        u32 const word = highest_bit(irr_summary_);
        u32 const vector = word * 32 + highest_bit(page_[apic_reg::IRR + word * 16]);
        // Its class must be above the task's and above everything in service.
        bool const wins = (vector & 0xf0) > (page_[apic_reg::TPR] & 0xf0) && isr_classes_ >> (vector >> 4) == 0;
        return wins ? static_cast<int>(vector) : -1;
    }
    void acknowledge(u8 vector); // IRR to ISR, for a vector that highest_pending() gave
    void end_of_interrupt();
    u8 task_priority() const { return static_cast<u8>(page_[apic_reg::TPR]); }
    void set_task_priority(u8 value) { page_[apic_reg::TPR] = value; }
    // PPR is computed when somebody asks; the page's copy is the hardware's, under virtual-interrupt delivery.
    u8 processor_priority() const {
        u32 const tpr = page_[apic_reg::TPR] & 0xff;
        u32 const in_service = isr_classes_ == 0 ? 0 : highest_bit(isr_classes_) << 4;
        return static_cast<u8>((tpr & 0xf0) >= in_service ? tpr : in_service);
    }
    // Whether INTR of the 8259 pair gets through to this CPU.
    bool accepts_pic() const {
        if (mode() == Mode::Disabled) return true;
        return (page_[apic_reg::LVT_LINT0] & (lvt_masked | 0x700)) == 0x700;
    }
    // The NMI line, wired to LINT1, was raised: true when the CPU takes an NMI, otherwise it is masked or became a
    // fixed vector.
    bool nmi_line();

    // --- timer, by the owner
    void timer_expired();
    void write_tsc_deadline(u64 value) { timer_.write_deadline(value); }
    u64 tsc_deadline() const { return timer_.deadline(); }
    void tsc_shifted(u64 delta) { timer_.tsc_shifted(delta); }
    bool is_timer_running() const { return timer_.is_running(); }

    // --- with virtual-interrupt delivery the hardware owns IRR, ISR, TPR, PPR and EOI of the page. highest_pending(),
    // acknowledge() and end_of_interrupt() are then not for use; accept(), merge_posted() and the writes still are.
    void set_virtualized(bool on);
    // Without it, where others set bits in IRR all the same: looks for them.
    void find_requests() {
        for (u32 i = 0; i < 8; ++i)
            if (page_.shared(apic_reg::IRR + i * 16).load(std::memory_order_seq_cst) != 0)
                irr_summary_ |= static_cast<u8>(1U << i);
    }
    int highest_irr() const { return page_.highest(apic_reg::IRR); }
    int highest_isr() const { return page_.highest(apic_reg::ISR); }
    // EOI-induced exit: ISR is already clear.
    void eoi_exit(u8 vector) {
        if (page_.test(apic_reg::TMR, vector)) bus_.end_of_interrupt(vector);
    }
    // APIC-write exit: trap-like, the value is already in the page.
    void apic_write(u32 offset);

private:
    static constexpr u32 lvt_masked = 1U << 16;
    enum class Error : u8 { SendIllegalVector = 5, ReceiveIllegalVector = 6, IllegalRegister = 7 };

    static constexpr u32 highest_bit(u32 not_zero) { return 31U ^ static_cast<u32>(__builtin_clz(not_zero)); }
    void reset_registers();
    void enter_mode(Mode mode);
    void publish_logical_id();
    bool merge_outstanding();
    bool merge(PendingInterrupts& from);
    void discard_posted();
    void error(Error what);
    void local_interrupt(u32 lvt);

    MsrResult write_x2apic_register(u32 number, u64 value);
    u32 read_register(u32 offset);
    void write_register(u32 offset, u32 value);
    void write_svr(u32 value);
    void write_lvt(u32 offset, u32 value);
    void write_esr();
    Mode mode_of(u64 base) const;
    bool is_valid(State const& state, Mode mode) const;
    void write_icr(u32 low, u32 destination);

    // Read by every sender.
    u32 id_;
    std::atomic<Mode> mode_{Mode::XApic};
    std::atomic<bool> is_flat_{true};
    std::atomic<u32> logical_id_{0}; // xAPIC: 8 bits

    // The owner's.
    u8 irr_summary_ = 0;  // bit n: word n of IRR is not zero
    u16 isr_classes_ = 0; // bit n: a vector of priority class n is in service; only one of a class ever is
    u8 in_service_[16]{}; // which, by class
    bool software_enabled_ = false;
    bool is_virtualized_ = false;
    u8 error_pending_ = 0;
    ApicPage& page_;
    ApicBus& bus_;
    u64 base_ = 0;
    ApicTimer timer_;
    LocalApicConfig config_;
    PendingInterrupts* descriptor_ = nullptr;
    PendingInterrupts pending_; // written by every sender, so on lines of its own
};

inline void LocalApic::acknowledge(u8 vector) {
    u32 const number = vector / 32U;
    u32 const mask = ApicPage::vector_bit(vector);
    u32 const offset = apic_reg::IRR + number * 16;
    page_.shared(offset).fetch_and(~mask, std::memory_order_relaxed);
    if (page_[offset] == 0) irr_summary_ &= static_cast<u8>(~(1U << number));
    page_[apic_reg::ISR + number * 16] |= mask;
    isr_classes_ |= static_cast<u16>(1U << (vector >> 4)); // it was deliverable, so its class was free
    in_service_[vector >> 4] = vector;
}

inline void LocalApic::end_of_interrupt() {
    if (isr_classes_ == 0) return;
    u32 const highest = highest_bit(isr_classes_);
    u8 const vector = in_service_[highest];
    isr_classes_ &= static_cast<u16>(~(1U << highest));
    u32 const offset = (vector & 0xe0U) / 2; // 32 vectors to 16 bytes
    u32 const mask = ApicPage::vector_bit(vector);
    page_[apic_reg::ISR + offset] &= ~mask;
    if ((page_[apic_reg::TMR + offset] & mask) != 0) [[unlikely]]
        bus_.end_of_interrupt(vector);
    if (irr_summary_ != 0) [[unlikely]]
        bus_.interrupt_pending(*this); // it may be its turn now
}

// EOI and an interrupt to oneself come first: they are what an x2APIC guest writes most.
inline MsrResult LocalApic::write_x2apic(u32 index, u64 value) {
    if (mode() != Mode::X2Apic) return MsrResult::GeneralProtection;
    u32 const number = index - msr::IA32_X2APIC_FIRST;
    if (number == apic_reg::EOI >> 4 && value == 0) [[likely]] {
        end_of_interrupt();
        return MsrResult::Done;
    }
    if (number == apic_reg::SELF_IPI >> 4 && value <= 0xff) {
        accept(static_cast<u8>(value), TriggerMode::Edge);
        return MsrResult::Done;
    }
    return write_x2apic_register(number, value);
}

} // namespace vm
