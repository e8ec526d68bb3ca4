// SPDX-License-Identifier: MIT
#pragma once
// Binds one VM together: the vCPUs and memory of vm/, the virtual platform of platform/, the machine's console and
// timers.
#include <atomic>
#include <config/description.hpp>
#include <kernel/calls.hpp>
#include <kernel/console.hpp>
#include <kernel/random.hpp>
#include <kernel/time.hpp>
#include <lib/guest_memory.hpp>
#include <loader/boot_copies.hpp>
#include <manage/disk_medium.hpp>
#include <manage/managed_vm.hpp>
#include <manage/modules.hpp>
#include <manage/network.hpp>
#include <manage/snapshot.hpp>
#include <manage/storage.hpp>
#include <optional>
#include <platform/platform.hpp>
#include <vm/vm.hpp>

namespace manage {

using lib::Nanos;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

class VirtualMachine final : public ManagedVm,
                             public platform::Host,
                             public vm::VirtualPlatform,
                             public kernel::ConsoleUser,
                             public DeviceOwner {
public:
    // Number `index` of `description`. `description` and `modules` must outlive it; `on_end` is what CPU 0 does when
    // the last vCPU has stopped. Nothing runs before begin().
    VirtualMachine(config::Description const& description, u32 index, Modules const& modules, vm::Backend& backend,
                   Storage& storage, Network& network, kernel::DeferredWork& on_end)
        : all_(description), index_(index), description_(description.vms[index]), modules_(modules), backend_(backend),
          storage_(storage), network_(network), on_end_(on_end) {}
    ~VirtualMachine() override;
    std::string_view name() const { return description_.name; }

    // ManagedVm
    bool is_ready() override;
    bool begin() override;
    Progress go_on() override;
    bool exists() const override { return static_cast<bool>(vm_); }
    bool is_running() const override { return vm_ && vm_->state() == vm::VmState::Running; }
    bool has_ended() const override {
        return vm_ && live_vcpus_.load(std::memory_order_acquire) == 0 && storage_.has_left(*this) &&
               network_.has_left(*this);
    }
    bool is_paused() const override { return is_paused_; }
    void power_button() override;
    void end(vm::EndReason reason, std::string_view why) override;
    bool pause() override;
    void resume() override;
    std::expected<void, std::string_view> begin_save() override;
    bool go_on_saving() override;
    u64 snapshot_size() const override;
    void discard() override { snapshot_ = {}; }
    bool begin_restore() override;
    VmFigures figures() override;
    vm::EndReason end_reason() const override { return vm_->end_reason(); }
    void report_end(lib::TextSink& summary, lib::TextSink& dump) override;
    void destroy() override;
    lib::Result<void> place(config::CpuPlacement const& wanted) override;
    void measure_exits(bool on) override;
    void add_exit_times(vm::ExitTimes& sum) override;
    kernel::ConsoleUser& console() override { return *this; }

    // vm::VirtualPlatform, called with interrupts off
    u64 port_in(u16 port, u8 size) override;
    void port_out(u16 port, u8 size, u64 value) override;
    void port_string(u16 port, u8 size, bool is_in, std::span<u8> bytes) override;
    u64 mmio_read(u64 address, u8 size) override;
    void mmio_write(u64 address, u8 size, u64 value) override;
    void mmio_update(u64 address, u8 size, vm::MmioChange change) override;
    bool has_pic_interrupt() override;
    u8 acknowledge_pic() override;
    void end_of_interrupt(u8 vector) override;
    std::array<u64, 4> eoi_vectors() override;
    void vcpu_stopped() override;

    // platform::Host, called by the platform, that is, with its lock held
    Nanos now() override { return is_paused_ ? paused_at_ : kernel::now(); }
    void arm_timer(u16 device, u32 id, u64 generation, Nanos deadline) override;
    void cancel_timer(u16 device, u32 id) override;
    void send_msi(platform::Msi message) override;
    void set_lint0(bool level) override;
    u32 console_write(std::span<u8 const> bytes) override;
    u32 console_read(std::span<u8> bytes) override;
    void request(platform::VmRequest what) override;
    u32 random(std::span<u8> bytes) override { return kernel::random(bytes); }
    void start_served_queue(u32 device, u32 queue, lib::QueueSetup const& setup) override;
    void stop_served_queues(u32 device) override;
    void served_doorbell(u32 device, u32 queue) override;

    // DeviceOwner
    void served_interrupt(u32 device, u32 queue) override;
    void served_misused(u32 device) override;
    void served_stopped(u32 device) override;
    void served_failed(u32 device) override;
    std::string_view owner_name() const override { return name(); }

    // kernel::ConsoleUser
    void on_console_input() override;
    void on_console_space() override;
    std::string_view console_name() const override { return name(); }
    bool is_console_dead() const override { return is_paused_; }

private:
    // A timer of a device model.
    struct DeviceTimer {
        kernel::Timer timer;
        VirtualMachine* owner = nullptr;
        u16 device = 0;
        u32 id = 0;
        u64 generation = 0;
        Nanos deadline{};
        bool is_armed = false;
        bool has_moved = false; // to another CPU since it was armed
        void expired() { owner->timer_expired(*this); }
    };
    static constexpr u32 max_timers = 16;
    // Where the queues of a device are served.
    struct Served {
        ServedDevices* by = nullptr; // nobody: it is not attached
        u32 device = 0;              // its number there
    };

    template <typename Body> decltype(auto) with_platform(Body&& body) {
        kernel::InterruptGuard const no_interrupts;
        return with_platform_in_exit(static_cast<Body&&>(body));
    }
    // For a vCPU between an exit and the next entry: interrupts are off already.
    template <typename Body> decltype(auto) with_platform_in_exit(Body&& body) {
        kernel::LockGuard const locked(platform_lock_);
        return body(*platform_);
    }
    void write_port(u16 port, u8 size, u64 value);
    void write_memory(u64 address, u8 size, u64 value);
    bool fail(std::string_view what);
    // The same with FILE:LINE in front.
    bool fail_at(u32 line, std::string_view what);
    bool fail_at(config::Key key, std::string_view what) { return fail_at(description_.line_of(key), what); }
    bool find_modules();
    // Of the guest's TSC, in Hz, 0 for the machine's own. Says so and fails when this machine cannot give it what the
    // description names.
    std::optional<u64> tsc_rate();
    bool build();
    bool load();
    bool make_media();
    bool prepare_media(u64 bytes);
    bool attach_disks();
    bool attach_nics();
    void cancel_devices();
    lib::Result<void> note_state();
    Progress go_on_restoring();
    lib::Result<void> restore_state();
    bool find_part(u32 disk);
    platform::MachineFacts facts() const;
    // Where device timers should be at this moment. With the platform's lock held.
    u32 cpu_for_timers();
    void start_timer(DeviceTimer& timer, u32 cpu);
    bool schedule();
    kernel::ScheduleSettings settings_for(config::CpuPlacement const& wanted) const;
    static lib::Result<void> place_one(vm::Vcpu& vcpu, kernel::ScheduleSettings const& wanted);
    u32 node_of_cpus() const;
    void let_go();
    void stop_timers();
    void timer_expired(DeviceTimer& timer);
    DeviceTimer* timer_of(u16 device, u32 id);
    void tell_changed_eoi_vectors(platform::Platform& platform) {
        if (platform.take_eoi_vectors_changed()) [[unlikely]]
            post_eoi_vectors();
    }
    void post_eoi_vectors();

    config::Description const& all_;
    u32 index_;
    config::VmDescription const& description_;
    Modules const& modules_;
    vm::Backend& backend_;
    Storage& storage_;
    Network& network_;
    kernel::Own<vm::Vm> vm_;
    std::optional<platform::Platform> platform_;
    // One thread at a time enters the platform; taken before every other lock.
    kernel::Spinlock<kernel::LockRank::Platform> platform_lock_;
    std::atomic<bool> pic_level_{false}; // of the 8259 pair's INTR; written with the platform's lock
    std::array<DeviceTimer, max_timers> timers_{};
    u32 timer_count_ = 0;
    bool are_timers_off_ = false; // the VM is being taken down
    lib::RamPiece* pieces_ = nullptr;
    u32 piece_count_ = 0;
    Nanos started_at_{};
    u64 ticks_zeroing_ = 0, ticks_building_ = 0;           // of the start
    std::array<DiskMedium, lib::max_disks> media_;         // of those in memory
    std::array<MachinePart, lib::max_disks> parts_{};      // of the others
    std::array<Served, lib::max_served_devices> served_{}; // disks, then NICs
    kernel::Own<Snapshot> snapshot_;
    bool is_restoring_ = false; // from it: the VM is on its way
    loader::BootCopies copies_;
    bool is_loaded_ = false; // but for what is left in `copies_`
    u64 taken_ = 0;          // of the machine's memory, for its start
    std::array<kernel::Own<vm::ExitTimes>, vm::max_vcpus> exit_times_{};
    std::atomic<bool> is_paused_{false}; // devices stand still
    Nanos paused_at_{};                  // machine time
    u32 scheduled_ = 0;                  // so many of the vCPUs are in the scheduler
    std::atomic<u32> live_vcpus_{0};
    kernel::DeferredWork& on_end_;
};

// The machine's wall clock in seconds since 1970.
u64 wall_clock_seconds();
void set_wall_clock(u64 seconds_at_time_zero);

} // namespace manage
