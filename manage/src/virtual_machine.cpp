// SPDX-License-Identifier: MIT
#include <algorithm>
#include <kernel/cpus.hpp>
#include <kernel/log.hpp>
#include <manage/virtual_machine.hpp>

namespace manage {
namespace {

constinit u64 wall_clock_at_zero = 0;

// The states of a crashed VM's vCPUs: all go into the dump, and into the log as many as the serial line's queue takes
// without a wait.
struct CrashReport {
    static constexpr u32 most_in_log = 8;
    std::string_view vm;
    lib::TextSink& dump;
    u32 count = 0;

    void add(u32 vcpu, std::string_view state) {
        if (count++ < most_in_log) kernel::log_error("vm {}: vCPU {} at the crash:\n{}", vm, vcpu, state);
        dump.write(state);
    }
    void finish() const {
        if (count > most_in_log) kernel::log_error("vm {}: {} more vCPUs: vm show {}", vm, count - most_in_log, vm);
    }
};

} // namespace

u64 wall_clock_seconds() { return wall_clock_at_zero + kernel::now().value / lib::nanos_per_second; }
void set_wall_clock(u64 seconds_at_time_zero) { wall_clock_at_zero = seconds_at_time_zero; }

VirtualMachine::~VirtualMachine() { destroy(); }

bool VirtualMachine::fail(std::string_view what) {
    kernel::log_error("vm {}: {}", name(), what);
    destroy();
    return false;
}

bool VirtualMachine::fail_at(u32 line, std::string_view what) {
    kernel::log_error("vm {}: {}:{}: {}", name(), all_.file, line, what);
    destroy();
    return false;
}

void VirtualMachine::vcpu_stopped() {
    if (live_vcpus_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    for (Served const& served : served_)
        if (served.by != nullptr) served.by->detach(served.device);
    kernel::defer(0, on_end_);
}

// No callback of a timer runs any more, nor will. The vCPUs have stopped, so only a callback could arm one again: it
// finds that it may not.
void VirtualMachine::stop_timers() {
    if (platform_)
        with_platform([&](platform::Platform&) {
            are_timers_off_ = true;
            for (u32 i = 0; i < timer_count_; i++) {
                timers_[i].is_armed = false;
                kernel::cancel_timer(timers_[i].timer);
            }
        });
    for (u32 i = 0; i < vm_->vcpu_count(); i++)
        vm_->vcpu(i).disarm_timer();
    // One that runs elsewhere at this moment comes to its end before that CPU answers.
    kernel::wait_for_other_cpus();
}

void VirtualMachine::destroy() {
    if (!vm_) return; // a start that came to nothing
    kernel::console().detach(*this);
    stop_timers();
    is_paused_ = is_restoring_ = false;
    for (; scheduled_ > 0; scheduled_--) {
        auto const removed = kernel::remove_runnable(vm_->vcpu(scheduled_ - 1));
        ASSERT(removed.has_value()); // it has stopped, or never ran
    }
    measure_exits(false);
    served_ = {}; // they have left, or never came
    vm_ = {};
    for (DiskMedium& medium : media_)
        medium.release();
    platform_.reset();
    pic_level_.store(false, std::memory_order_relaxed); // what the next one begins with
    timer_count_ = 0;
    are_timers_off_ = false;
    ::operator delete(pieces_, piece_count_ * sizeof(lib::RamPiece));
    pieces_ = nullptr;
    piece_count_ = 0;
}

void VirtualMachine::report_end(lib::TextSink& summary, lib::TextSink& dump) {
    vm_->set_stopped();
    u64 const millis = (kernel::now() - started_at_).value / 1'000'000;
    if (vm_->end_reason() == vm::EndReason::Crash) {
        CrashReport report{name(), dump};
        vm_->report_states(vm::Vm::StatePart::to<&CrashReport::add>(report));
        report.finish();
    }
    std::array<char, 512> exits{};
    lib::BufferSink list(exits);
    u64 total = 0;
    auto const counts = figures().exits;
    for (unsigned reason = 0; reason < vm::exit_reason_count; reason++) {
        total += counts[reason];
        if (counts[reason] > 0)
            lib::format(list, " {} {}", vm::name_of(static_cast<vm::ExitReason>(reason)), counts[reason]);
    }
    kernel::log_info("vm {}: {} exits:{}", name(), total, list.view());
    lib::format(summary, "{}{}{}, ran {}.{:03} s", vm::name_of(vm_->end_reason()), vm_->end_text().empty() ? "" : ": ",
                vm_->end_text(), millis / 1000, millis % 1000);
    kernel::log_info("mullion: vm {} ended: {}{}{}, ran {}.{:03} s", name(), vm::name_of(vm_->end_reason()),
                     vm_->end_text().empty() ? "" : ": ", vm_->end_text(), millis / 1000, millis % 1000);
}

VmFigures VirtualMachine::figures() {
    VmFigures figures;
    figures.run_time = kernel::now() - started_at_;
    u64 nanos = 0;
    for (u32 i = 0; i < scheduled_; i++) {
        vm::Vcpu& vcpu = vm_->vcpu(i);
        nanos += kernel::scheduler().used(vcpu, kernel::now().value);
        auto const latency = vcpu.wake_latency();
        figures.wake_ups.count += latency.count;
        figures.wake_ups.total += latency.total;
        figures.wake_ups.longest = std::max(figures.wake_ups.longest, latency.longest);
    }
    figures.cpu_time = {nanos};
    for (u32 i = 0; i < vm_->vcpu_count(); i++)
        for (unsigned reason = 0; reason < vm::exit_reason_count; reason++)
            figures.exits[reason] += vm_->vcpu(i).exit_counts()[reason];
    return figures;
}

void VirtualMachine::measure_exits(bool on) {
    if (!vm_) return;
    for (u32 i = 0; i < vm_->vcpu_count(); i++) {
        if (on && !exit_times_[i]) exit_times_[i] = kernel::Own(new (std::nothrow) vm::ExitTimes);
        vm_->vcpu(i).measure_exits(on ? exit_times_[i].get() : nullptr);
    }
    if (on) return;
    kernel::wait_for_other_cpus(); // whoever is in the middle of an exit may still write there
    for (auto& times : exit_times_)
        times = {};
}

void VirtualMachine::add_exit_times(vm::ExitTimes& sum) {
    for (auto const& times : exit_times_)
        if (times) sum.add(*times);
}

// --- vm::VirtualPlatform

u64 VirtualMachine::port_in(u16 port, u8 size) {
    return with_platform_in_exit(
        [&](platform::Platform& p) { return p.io(platform::Space::Pio, port, size, platform::Op::Read, 0).data; });
}

void VirtualMachine::port_out(u16 port, u8 size, u64 value) {
    if (port >= lib::layout::pci_ports.base) { // no lock: platform/doorbells.hpp says why
        u32 const device = platform_->doorbells().at_port(port, size);
        if (device != platform::Doorbells::none) return served_doorbell(device, 0);
    }
    write_port(port, size, value);
}

// Apart from what rings doorbells, which needs none of the registers that this saves.
[[gnu::noinline]] void VirtualMachine::write_port(u16 port, u8 size, u64 value) {
    with_platform_in_exit(
        [&](platform::Platform& p) { p.io(platform::Space::Pio, port, size, platform::Op::Write, value); });
}

void VirtualMachine::port_string(u16 port, u8 size, bool is_in, std::span<u8> bytes) {
    with_platform_in_exit([&](platform::Platform& p) {
        p.io_string(port, size, is_in ? platform::Op::Read : platform::Op::Write, bytes);
    });
}

u64 VirtualMachine::mmio_read(u64 address, u8 size) {
    return with_platform_in_exit(
        [&](platform::Platform& p) { return p.io(platform::Space::Mmio, address, size, platform::Op::Read, 0).data; });
}

void VirtualMachine::mmio_write(u64 address, u8 size, u64 value) {
    // A device with a fixed place is told from a doorbell by its address alone.
    constexpr lib::layout::Window fixed = lib::layout::fixed_devices;
    if (address - fixed.base < fixed.size) return write_memory(address, size, value);
    if (u32 const device = platform_->doorbells().in_memory(address, size); device != platform::Doorbells::none)
        return served_doorbell(device, 0);
    write_memory(address, size, value);
}

[[gnu::noinline]] void VirtualMachine::write_memory(u64 address, u8 size, u64 value) {
    with_platform_in_exit([&](platform::Platform& p) {
        p.io(platform::Space::Mmio, address, size, platform::Op::Write, value);
        tell_changed_eoi_vectors(p);
    });
}

void VirtualMachine::mmio_update(u64 address, u8 size, vm::MmioChange change) {
    with_platform_in_exit([&](platform::Platform& p) {
        u64 value = 0;
        if (!change(p.io(platform::Space::Mmio, address, size, platform::Op::Read, 0).data, value)) return;
        p.io(platform::Space::Mmio, address, size, platform::Op::Write, value);
        tell_changed_eoi_vectors(p);
    });
}

// Without the platform's lock: each vCPU 0 asks before it takes an interrupt. set_lint0() writes the line's level and
// then posts a request, both with the lock; a vCPU that takes that request (read-modify-write on both sides) reads the
// level that was written before it, or a later one. If the line falls just after that look, the vCPU asks the pair for
// a vector, with the lock, and gets that of a spurious interrupt, as a CPU does. [intel/8259a]
bool VirtualMachine::has_pic_interrupt() { return pic_level_.load(std::memory_order_acquire); }

u8 VirtualMachine::acknowledge_pic() {
    return with_platform_in_exit([](platform::Platform& p) { return p.acknowledge_interrupt(); });
}

void VirtualMachine::end_of_interrupt(u8 vector) {
    with_platform_in_exit([&](platform::Platform& p) { p.end_of_interrupt(vector); });
}

std::array<u64, 4> VirtualMachine::eoi_vectors() {
    return with_platform_in_exit([](platform::Platform& p) {
        std::array<u64, 4> words{};
        for (unsigned vector = 0; vector < 256; vector++)
            if (p.eoi_wanted(static_cast<u8>(vector))) words[vector / 64] |= u64{1} << vector % 64;
        return words;
    });
}

// --- platform::Host

VirtualMachine::DeviceTimer* VirtualMachine::timer_of(u16 device, u32 id) {
    for (u32 i = 0; i < timer_count_; i++)
        if (timers_[i].device == device && timers_[i].id == id) return &timers_[i];
    return nullptr;
}

void VirtualMachine::arm_timer(u16 device, u32 id, u64 generation, Nanos deadline) {
    DeviceTimer* timer = timer_of(device, id);
    if (timer == nullptr) {
        ASSERT(timer_count_ < max_timers); // devices have a fixed number of timers
        timer = &timers_[timer_count_++];
        timer->owner = this;
        timer->device = device;
        timer->id = id;
        timer->timer.set_callback(kernel::Timer::Callback::to<&DeviceTimer::expired>(*timer));
    }
    if (are_timers_off_) return;
    timer->generation = generation;
    timer->deadline = deadline;
    timer->is_armed = true;
    timer->has_moved = false;
    if (!is_paused_) [[likely]]
        start_timer(*timer, cpu_for_timers());
}

u32 VirtualMachine::cpu_for_timers() {
    u32 const here = kernel::this_cpu().index;
    return scheduled_ > 0 ? kernel::scheduler().cpu_for_work(vm_->vcpu(0), here) : here;
}

void VirtualMachine::start_timer(DeviceTimer& timer, u32 cpu) {
    timer.timer.set_payer(scheduled_ > 0 ? &vm_->vcpu(0) : nullptr);
    kernel::arm_timer_on(cpu, timer.timer, kernel::tsc_of(timer.deadline));
}

void VirtualMachine::cancel_timer(u16 device, u32 id) {
    DeviceTimer* const timer = timer_of(device, id);
    if (timer == nullptr) return;
    timer->is_armed = false;
    kernel::cancel_timer(timer->timer);
}

void VirtualMachine::timer_expired(DeviceTimer& timer) {
    with_platform([&](platform::Platform& p) {
        // Paused: resume() starts it again. Not due: it was armed anew while this was on its way, and comes again.
        if (is_paused_ || !timer.is_armed || now() < timer.deadline) return;
        // The VM runs elsewhere now, or this CPU has been given to another: the timer follows. At most once for each
        // expiry, or the two might never meet.
        u32 const cpu = cpu_for_timers();
        if (cpu != kernel::this_cpu().index && !timer.has_moved) {
            timer.has_moved = true;
            return start_timer(timer, cpu);
        }
        timer.is_armed = false;
        p.on({timer.generation, timer.id, timer.device, platform::EventKind::Timer, 0});
    });
}

void VirtualMachine::send_msi(platform::Msi message) {
    tell_changed_eoi_vectors(*platform_);
    vm_->deliver_message(message.address, message.data);
}

void VirtualMachine::post_eoi_vectors() {
    for (u32 i = 0; i < vm_->vcpu_count(); i++)
        vm_->vcpu(i).post(vm::request::eoi_bitmap);
}

void VirtualMachine::set_lint0(bool level) {
    pic_level_.store(level, std::memory_order_release); // before the request: has_pic_interrupt() says why
    if (level) vm_->vcpu(0).post(vm::request::interrupt);
}

u32 VirtualMachine::console_write(std::span<u8 const> bytes) {
    if (description_.console == config::ConsoleKind::None) return static_cast<u32>(bytes.size());
    return kernel::console().write(*this, bytes);
}

u32 VirtualMachine::console_read(std::span<u8> bytes) { return kernel::console().read(*this, bytes); }

void VirtualMachine::request(platform::VmRequest what) {
    if (what == platform::VmRequest::PowerOff)
        vm_->stop(vm::EndReason::PowerOff, "");
    else
        vm_->stop(vm::EndReason::Reset, "");
}

void VirtualMachine::start_served_queue(u32 device, u32 queue, lib::QueueSetup const& setup) {
    served_[device].by->start_queue(served_[device].device, queue, setup);
}

void VirtualMachine::stop_served_queues(u32 device) { served_[device].by->stop_queues(served_[device].device); }

void VirtualMachine::served_doorbell(u32 device, u32) { served_[device].by->doorbell(served_[device].device); }

void VirtualMachine::served_interrupt(u32 device, u32 queue) {
    with_platform_in_exit([&](platform::Platform& p) { p.served_interrupt(device, queue); });
}

void VirtualMachine::served_misused(u32 device) {
    with_platform_in_exit([&](platform::Platform& p) { p.served_misused(device); });
}

void VirtualMachine::served_stopped(u32 device) {
    with_platform([&](platform::Platform& p) { p.served_stopped(device); });
}

void VirtualMachine::served_failed(u32 device) {
    std::array<char, 80> text{};
    bool const is_nic = device >= lib::max_disks;
    end(vm::EndReason::Crash, lib::format_to(text, "too little memory to serve {} {}", is_nic ? "NIC" : "disk",
                                             is_nic ? device - lib::max_disks : device));
}

void VirtualMachine::power_button() {
    with_platform([](platform::Platform& p) { p.power_button(); });
}

void VirtualMachine::end(vm::EndReason reason, std::string_view why) {
    vm_->stop(reason, why);
    let_go();
}

void VirtualMachine::let_go() {
    vm_->hold(false);
    for (u32 i = 0; i < vm_->vcpu_count(); i++)
        vm_->wake(vm_->vcpu(i));
}

bool VirtualMachine::pause() {
    if (is_paused_) return true;
    // Whoever is in the guest comes out and finds that it may not run again; the others do not begin.
    vm_->hold(true);
    for (u32 i = 0; i < vm_->vcpu_count(); i++)
        vm_->vcpu(i).post(vm::request::leave);
    kernel::wait_for_other_cpus();
    if (!is_running()) {
        let_go();
        return false;
    }
    with_platform([&](platform::Platform&) {
        paused_at_ = kernel::now();
        is_paused_ = true;
        for (u32 i = 0; i < timer_count_; i++)
            kernel::cancel_timer(timers_[i].timer);
    });
    return true;
}

void VirtualMachine::resume() {
    if (!is_paused_) return;
    with_platform([&](platform::Platform&) {
        is_paused_ = false;
        for (u32 i = 0; i < timer_count_; i++)
            if (timers_[i].is_armed) start_timer(timers_[i], cpu_for_timers());
    });
    let_go();
}

// --- kernel::ConsoleUser

void VirtualMachine::on_console_input() {
    if (!is_running()) return;
    with_platform([](platform::Platform& p) {
        p.on({0, 0, platform::Devices::number_of<platform::SerialPort>(), platform::EventKind::ConsoleInput, 0});
    });
}

void VirtualMachine::on_console_space() {
    if (!is_running()) return;
    with_platform([](platform::Platform& p) {
        p.on({0, 0, platform::Devices::number_of<platform::SerialPort>(), platform::EventKind::ConsoleSpace, 0});
    });
}

} // namespace manage
