// SPDX-License-Identifier: MIT
#pragma once
// Interrupts of devices. Each has a vector on one CPU, a handler, and a source that sends it; it can move to another
// CPU without being lost. The vectors of a CPU are its own: the same number means another device on another CPU. Not
// supported: several devices on one interrupt, lowest-priority delivery, interrupt remapping.
#include <array>
#include <atomic>
#include <kernel/traps.hpp>
#include <lib/cpu_set.hpp>
#include <lib/intrusive_list.hpp>
#include <lib/result.hpp>
#include <string_view>

namespace kernel {

using lib::CpuSet;
using lib::max_cpus;

// Where a source sends its interrupt.
struct InterruptTarget {
    lib::u32 apic_id;
    u8 vector;
    friend bool operator==(InterruptTarget const&, InterruptTarget const&) = default;
};

// An APIC id above this fits neither an I/O APIC's entry nor a message without interrupt remapping; 255 means all CPUs.
// [intel/vol3] 12.11.1
inline constexpr lib::u32 widest_interrupt_apic_id = 254;

// What sends an interrupt: an input of an I/O APIC.
class InterruptSource {
public:
    // Only while it is masked. Unsupported: widest_interrupt_apic_id.
    virtual lib::Result<void> set_target(InterruptTarget target) = 0;
    virtual void set_masked(bool masked) = 0;
    // One was sent that the CPU has not accepted, or whose end the source has not heard of.
    virtual bool is_underway() = 0;
    // Whether what the device asks for while the source is masked is sent after it; otherwise it is gone.
    virtual bool keeps_while_masked() const = 0;

protected:
    ~InterruptSource() = default;
};

// Lives in its owner. Nothing here is called by an interrupt handler or under a lock, and one CPU at a time changes an
// interrupt.
class Interrupt : public lib::ListLink<Interrupt> {
public:
    // `name` lives as long. The handler is called with interrupts off, never on two CPUs at a time, and sometimes
    // although the device asked for nothing.
    Interrupt(std::string_view name, InterruptHandler handler) : name_(name), handler_(handler) {}
    // No handler runs afterwards.
    ~Interrupt() { disconnect(); }

    // Gives it a vector on that CPU and unmasks the source, which is masked and lives until disconnect(). Unsupported:
    // the CPU's APIC id is too wide. Busy: the CPU has no vector left. The source's errors. BadState: it is connected.
    lib::Result<void> connect(InterruptSource& source, lib::u32 cpu);
    void disconnect();
    // Moves it to another CPU. connect()'s errors, and TimedOut if the source does not come to rest within a second;
    // then it stays where it was. BadState: it is not connected.
    lib::Result<void> move_to(lib::u32 cpu);

    std::string_view name() const { return name_; }
    bool is_connected() const { return source_ != nullptr; }
    lib::u32 cpu() const { return cpu_; }
    u8 vector() const { return vector_; }
    u64 count() const { return count_.load(std::memory_order_relaxed); }

private:
    friend void dispatch_interrupt(u8 vector);
    friend void confine_interrupts(CpuSet const& allowed, lib::u32 refuge);
    void handle() {
        count_.store(count() + 1, std::memory_order_relaxed);
        handler_();
    }

    std::string_view name_;
    InterruptHandler handler_;
    InterruptSource* source_ = nullptr;
    lib::u32 cpu_ = 0;
    u8 vector_ = 0;
    bool is_stuck_ = false; // it could not be moved: confine_interrupts() leaves it alone until somebody has moved it
    std::atomic<u64> count_{0};
};

// The device vectors of one CPU. It reads them itself, in its interrupts; who writes holds the lock of all interrupts.
struct DeviceVectors {
    static constexpr unsigned count = vectors::last_device - vectors::first_device + 1;
    std::array<std::atomic<Interrupt*>, count> owners{};
    std::atomic<lib::u32> drains{0};     // how often vectors::drain was handled
    std::atomic<lib::u32> unexpected{0}; // interrupts at vectors that nobody has
};

// Before the first interrupt is moved or disconnected.
void start_interrupts();

// All that are connected, in no order.
struct InterruptStatus {
    std::string_view name;
    lib::u32 cpu;
    u8 vector;
    u64 count;
};
lib::u32 interrupt_count();
// False: there are fewer.
bool interrupt_status(lib::u32 index, InterruptStatus& out);
// Moves those of one name. NotFound, and the errors of move_to().
lib::Result<void> move_interrupt(std::string_view name, lib::u32 cpu);
// Moves those that are on a CPU outside of `allowed` to `refuge`. One that cannot be moved is named in the log and not
// tried again, because each try waits for a second.
void confine_interrupts(CpuSet const& allowed, lib::u32 refuge);

} // namespace kernel
