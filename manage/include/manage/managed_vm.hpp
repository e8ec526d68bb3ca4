// SPDX-License-Identifier: MIT
#pragma once
// A VM as its supervisor sees it: what it can be made to do, and what it has come to. VirtualMachine is one;
// tests have another. All of it in the run loop of CPU 0.
#include <array>
#include <config/description.hpp>
#include <expected>
#include <kernel/console.hpp>
#include <kernel/scheduler.hpp>
#include <lib/result.hpp>
#include <lib/types.hpp>
#include <vm/exit_times.hpp>
#include <vm/vm.hpp>

namespace manage {

using lib::Nanos;
using lib::u32;
using lib::u64;

struct VmFigures {
    Nanos run_time{};               // since its start
    Nanos cpu_time{};               // of all vCPUs
    kernel::WakeLatency wake_ups{}; // of all vCPUs; ns
    std::array<u64, vm::exit_reason_count> exits{};
};

class ManagedVm {
public:
    enum class Progress : lib::u8 { More, Started, Failed };

    virtual ~ManagedVm() = default;
    // Whether what the machine has for it is known; until then, begin() would refuse it. Some milliseconds at most.
    virtual bool is_ready() = 0;
    // Takes memory and builds the platform; then go_on() is called again and again, each call some milliseconds at most
    // but for loading the kernel, until the VM runs. False and Failed: the reason is in the log and nothing is kept.
    virtual bool begin() = 0;
    virtual Progress go_on() = 0;
    virtual bool exists() const = 0;     // from begin() to destroy()
    virtual bool is_running() const = 0; // started, and neither ended nor told to
    virtual bool has_ended() const = 0;  // no vCPU runs any more; valid once started
    virtual bool is_paused() const = 0;
    // The rest while it exists, and has started.
    virtual void power_button() = 0;
    // has_ended() follows, paused or not. When it is ending already, the first reason stays.
    virtual void end(vm::EndReason reason, std::string_view why) = 0;
    // Nothing of it runs afterwards; its clocks are right when it goes on. False: the guest ended itself meanwhile.
    virtual bool pause() = 0;
    virtual void resume() = 0;
    // A snapshot of a paused VM, which has none: takes memory and notes the state. Then go_on_saving() is called again
    // and again, each call some milliseconds at most, until it is true; the VM stays paused. The error is the rest of a
    // sentence about it. The snapshot outlives the VM.
    virtual std::expected<void, std::string_view> begin_save() = 0;
    virtual bool go_on_saving() = 0;
    // Bytes that the snapshot takes, whole or not; 0: there is none.
    virtual u64 snapshot_size() const = 0;
    virtual void discard() = 0;
    // As begin(), with what the snapshot holds instead of a kernel; it is paused once it has started.
    virtual bool begin_restore() = 0;
    virtual VmFigures figures() = 0;
    virtual vm::EndReason end_reason() const = 0;
    // Says in the log how it ended, and the same in `summary`; for a crash, the registers go to `dump`.
    virtual void report_end(lib::TextSink& summary, lib::TextSink& dump) = 0;
    // Gives everything back, whatever it came to; it can begin again.
    virtual void destroy() = 0;
    // New processors and shares for all its vCPUs, or for none.
    virtual lib::Result<void> place(config::CpuPlacement const& wanted) = 0;
    // How long its exits take is measured from now on, or no longer.
    virtual void measure_exits(bool on) = 0;
    virtual void add_exit_times(vm::ExitTimes& sum) = 0;
    virtual kernel::ConsoleUser& console() = 0;
};

} // namespace manage
