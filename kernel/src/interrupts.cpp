// SPDX-License-Identifier: MIT
#include <kernel/apic.hpp>
#include <kernel/cpus.hpp>
#include <kernel/interrupts.hpp>
#include <kernel/log.hpp>
#include <kernel/panic.hpp>

namespace kernel {
namespace {

using lib::Errc;
using lib::u32;

constexpr u32 seconds_to_rest = 1;
constexpr u32 seconds_to_panic = 60; // as with run_on(), when there is no way on without that CPU
constexpr unsigned looks_per_drain = 8;

struct Connected {
    lib::IntrusiveList<Interrupt> all;
};
constinit Guarded<Connected, LockRank::Interrupts> connected;

u64 tsc_seconds(u32 seconds) { return u64{seconds} * tsc_scale().hz(); }

// A vector of that CPU for `owner`, whose handler is called from now on when an interrupt comes there.
lib::Result<u8> take_vector(u32 index, Interrupt& owner) {
    Cpu& there = cpu(index);
    if (there.apic_id > widest_interrupt_apic_id) return lib::fail(Errc::Unsupported);
    return connected.with([&](Connected&) -> lib::Result<u8> {
        for (unsigned i = 0; i < DeviceVectors::count; i++) {
            auto& slot = there.device_vectors.owners[i];
            if (slot.load(std::memory_order_relaxed) != nullptr) continue;
            slot.store(&owner, std::memory_order_release);
            return static_cast<u8>(vectors::first_device + i);
        }
        return lib::fail(Errc::Busy);
    });
}

// After drain(): nothing comes there any more.
void give_vector_back(u32 index, u8 vector) {
    connected.with([&](Connected&) {
        cpu(index).device_vectors.owners[vector - vectors::first_device].store(nullptr, std::memory_order_release);
    });
}

// Waits until that CPU has handled every interrupt of a device that it had accepted: the local APIC delivers by
// priority, and vectors::drain is below them all. False if it does not within that time. The CPU may be the calling
// one, which takes its interrupts while it waits.
bool drain(u32 index, u32 seconds) {
    ASSERT(this_cpu().held_lock_ranks == 0);
    Cpu& there = cpu(index);
    u32 const before = there.device_vectors.drains.load(std::memory_order_acquire);
    local_apic().send_ipi(there.apic_id, vectors::drain);
    u64 const begin = lib::x86::rdtsc();
    while (there.device_vectors.drains.load(std::memory_order_acquire) == before) {
        lib::x86::take_interrupts();
        lib::x86::pause();
        if (lib::x86::rdtsc() - begin <= tsc_seconds(seconds)) continue;
        log_warning("CPU {} (APIC id {:#x}) does not take its interrupts", index, there.apic_id);
        return false;
    }
    return true;
}

// The source is masked. Waits until nothing that it sent to that CPU is on its way or being handled there: false if
// that takes too long.
bool bring_to_rest(InterruptSource& source, u32 index) {
    u64 const begin = lib::x86::rdtsc();
    do {
        // What has been accepted is handled, and the end of it told to the source.
        if (!drain(index, seconds_to_rest)) return false;
        for (unsigned i = 0; i < looks_per_drain; i++)
            if (!source.is_underway()) return drain(index, seconds_to_rest); // the last may have been accepted since
    } while (lib::x86::rdtsc() - begin < tsc_seconds(seconds_to_rest));
    return false;
}

} // namespace

lib::Result<void> Interrupt::connect(InterruptSource& source, u32 cpu) {
    if (is_connected()) return lib::fail(Errc::BadState);
    u8 const vector = TRY(take_vector(cpu, *this));
    auto const result = source.set_target({kernel::cpu(cpu).apic_id, vector});
    if (!result) {
        give_vector_back(cpu, vector);
        return result;
    }
    cpu_ = cpu;
    vector_ = vector;
    source_ = &source;
    connected.with([&](Connected& them) { them.all.push_back(*this); });
    source.set_masked(false);
    return {};
}

void Interrupt::disconnect() {
    if (!is_connected()) return;
    source_->set_masked(true);
    // The source may keep its state for ever; the CPU must have left the handler.
    if (!bring_to_rest(*source_, cpu_) && !drain(cpu_, seconds_to_panic)) {
        std::array<char, 120> text{};
        panic(lib::format_to(text, "CPU {} has not taken its interrupts for {} s", cpu_, seconds_to_panic));
    }
    connected.with([&](Connected& them) { them.all.remove(*this); });
    give_vector_back(cpu_, vector_);
    source_ = nullptr;
}

// The order that loses nothing and never has the handler on two CPUs:
// 1. a vector on the new CPU, with the handler, so that whatever comes there is handled;
// 2. the source is masked, and comes to rest: what it sent to the old CPU has been handled there, and with a
//    level-triggered input the end of it has reached the I/O APIC while the entry still has the vector that it waits
//    for;
// 3. the source is aimed at the new CPU and unmasked. A level-triggered input that is still active is sent now;
// 4. an edge that came while the input was masked is gone, so the new CPU is sent the vector once by ourselves. A
//    level-triggered input is never sent one: an edge of the same vector would make the local APIC forget to tell the
//    I/O APIC of its end;
// 5. the old vector is free.
lib::Result<void> Interrupt::move_to(u32 cpu) {
    if (!is_connected()) return lib::fail(Errc::BadState);
    if (cpu == cpu_) return {};
    u8 const vector = TRY(take_vector(cpu, *this));
    u32 const apic_id = kernel::cpu(cpu).apic_id;
    source_->set_masked(true);
    lib::Result<void> result = lib::fail(Errc::TimedOut);
    if (bring_to_rest(*source_, cpu_)) result = source_->set_target({apic_id, vector});
    if (result) {
        give_vector_back(cpu_, vector_);
        cpu_ = cpu;
        vector_ = vector;
        is_stuck_ = false;
    } else {
        give_vector_back(cpu, vector);
    }
    source_->set_masked(false);
    if (!source_->keeps_while_masked()) local_apic().send_ipi(kernel::cpu(cpu_).apic_id, vector_);
    return result;
}

u32 interrupt_count() {
    u32 count = 0;
    connected.with([&](Connected& them) {
        for ([[maybe_unused]] auto const& each : them.all)
            count++;
    });
    return count;
}

bool interrupt_status(u32 index, InterruptStatus& out) {
    return connected.with([&](Connected& them) {
        for (auto const& each : them.all)
            if (index-- == 0) {
                out = {each.name(), each.cpu(), each.vector(), each.count()};
                return true;
            }
        return false;
    });
}

namespace {

template <typename Predicate> Interrupt* find_interrupt(Predicate is_meant) {
    return connected.with([&](Connected& them) -> Interrupt* {
        for (auto& each : them.all)
            if (is_meant(each)) return &each;
        return nullptr;
    });
}

void note_drain() { this_cpu().device_vectors.drains.fetch_add(1, std::memory_order_release); }

} // namespace

void start_interrupts() { set_interrupt_handler(vectors::drain, InterruptHandler::to_function<note_drain>()); }

lib::Result<void> move_interrupt(std::string_view name, u32 cpu) {
    Interrupt* const found = find_interrupt([&](Interrupt const& each) { return each.name() == name; });
    if (found == nullptr) return lib::fail(Errc::NotFound);
    return found->move_to(cpu);
}

void confine_interrupts(CpuSet const& allowed, u32 refuge) {
    while (auto* const found = find_interrupt([&](Interrupt const& each) {
               return !allowed.has(each.cpu()) && each.cpu() != refuge && !each.is_stuck_;
           })) {
        u32 const from = found->cpu();
        auto const result = found->move_to(refuge);
        if (result) {
            log_info("interrupt {}: moved to CPU {}, because a VM has CPU {} for itself", found->name(), refuge, from);
            continue;
        }
        found->is_stuck_ = true;
        log_warning("interrupt {}: it stays on CPU {}: {}", found->name(), found->cpu(), name_of(result.error()));
    }
}

} // namespace kernel
