// SPDX-License-Identifier: MIT
#include <algorithm>
#include <boot/bring_up.hpp>
#include <boot/machine.hpp>
#include <boot/run_vms.hpp>
#include <kernel/cpus.hpp>
#include <kernel/interrupts.hpp>
#include <kernel/log.hpp>
#include <kernel/panic.hpp>
#include <kernel/services.hpp>
#include <kernel/topology.hpp>
#include <manage/monitor.hpp>
#include <manage/network.hpp>
#include <manage/storage.hpp>
#include <manage/supervisor.hpp>
#include <manage/virtual_machine.hpp>

// services.S
extern "C" lib::u8 const storage_service_begin[], storage_service_end[], network_service_begin[], network_service_end[];

namespace boot {
namespace {

constexpr std::string_view services_folder = "services/", storage_module = "services/storage",
                           network_module = "services/network";

config::HostCpus host_cpus() {
    config::HostCpus cpus(kernel::cpu_count());
    for (u32 cpu = 0; cpu < cpus.count; cpu++)
        cpus.core[cpu] = static_cast<lib::u16>(kernel::machine_topology().siblings(cpu).next(0));
    return cpus;
}

class Machine final : public manage::SupervisorHost {
public:
    Machine(manage::Modules const& modules, vm::Backend& backend, config::FailureAction on_failure)
        : modules_(modules), backend_(backend), supervisor_(*this, kernel::console(), on_failure) {}

    void start() {
        kernel::console().set_monitor(monitor_);
        monitor_.show_disks_of(storage_);
        monitor_.show_networks_of(network_);
        start_services();
        auto const* const file = modules_.description();
        if (file != nullptr) {
            std::string_view const text(reinterpret_cast<char const*>(file->bytes.data()), file->bytes.size());
            return supervisor_.start_all(file->name, text);
        }
        std::array<char, 300> names{};
        lib::BufferSink sink(names);
        modules_.list(sink);
        kernel::log_error("no VM description: expected a boot module called vms.toml, found: {}; add \"module2 FILE "
                          "vms.toml\" in grub.cfg",
                          sink.view());
        supervisor_.start_all({}, {});
    }

    kernel::Own<manage::ManagedVm> create(config::Description const& description, u32 index) override {
        return kernel::Own<manage::ManagedVm>(new (std::nothrow) manage::VirtualMachine(
            description, index, modules_, backend_, storage_, network_, work_));
    }
    lib::Nanos now() const override { return kernel::now(); }
    void call_soon() override { kernel::defer(0, work_); }
    void call_at(lib::Nanos time) override {
        if (time == alarm_at_) return;
        alarm_at_ = time;
        if (time == never)
            kernel::cancel_timer(alarm_);
        else
            kernel::arm_timer(alarm_, kernel::tsc_of(time));
    }
    config::HostCpus const& cpus() const override { return cpus_; }
    void share_cores(bool allowed) override { kernel::scheduler().share_cores(allowed); }
    manage::CpuStatus cpu_status(u32 index) override;
    void describe(lib::TextSink& sink) const override {
        lib::format(sink, "{}: ", backend_.name());
        backend_.describe(sink);
    }
    bool is_monitor_open() const override { return monitor_.is_open(); }
    void power_off(u32 status) override { boot::power_off(status); }
    void restart() override { boot::restart(); }
    void crash() override { asm volatile("ud2"); }

private:
    static constexpr lib::Nanos never{~u64{0}};

    // Boot modules services/NAME are services too. One of ours starts when it is needed, or a module of its name does.
    void start_services() {
        kernel::set_machine_services(services_);
        for (auto const& module : modules_.all())
            if (module.name.starts_with(services_folder) && module.name != storage_module &&
                module.name != network_module)
                services_.add(module.name.substr(services_folder.size()), module.bytes);
    }
    std::span<u8 const> program(std::string_view module_name, std::span<u8 const> own) const {
        auto const* const module = modules_.find(module_name);
        return module != nullptr ? *module : own;
    }
    void work() {
        monitor_.run_pending();
        services_.manage();
        supervisor_.manage();
        kernel::confine_interrupts(kernel::scheduler().shared_cpus(), 0); // CPUs that a VM now has for itself
        monitor_.run_pending();                                           // its prompt stands below what was logged
    }
    void alarm() {
        alarm_at_ = never; // it may be set for the same moment again
        call_soon();
    }

    manage::Modules const& modules_;
    vm::Backend& backend_;
    manage::Supervisor supervisor_;
    kernel::Services services_{lib::Delegate<void()>::to<&Machine::call_soon>(*this)};
    manage::Storage storage_{services_, program(storage_module, {storage_service_begin, storage_service_end}),
                             manage::Controllers::Line::to_function<isa_interrupt>()};
    manage::Network network_{services_, program(network_module, {network_service_begin, network_service_end})};
    kernel::DeferredWork work_{kernel::DeferredWork::Body::to<&Machine::work>(*this)};
    kernel::Timer alarm_{kernel::Timer::Callback::to<&Machine::alarm>(*this)};
    lib::Nanos alarm_at_ = never;
    config::HostCpus const cpus_ = host_cpus();
    manage::Monitor monitor_{supervisor_, kernel::console(), lib::Delegate<void()>::to<&Machine::call_soon>(*this)};
};

manage::CpuStatus Machine::cpu_status(u32 index) {
    kernel::Cpu& cpu = kernel::cpu(index);
    manage::CpuStatus status;
    status.index = index;
    status.apic_id = cpu.apic_id;
    u64 const now = kernel::now().value;
    u64 idle = cpu.idle_nanos.load(std::memory_order_relaxed);
    // The CPU goes on meanwhile, so this may be off by one nap.
    if (u64 const since = cpu.idle_since.load(std::memory_order_relaxed); since != 0 && since < now)
        idle += now - since;
    status.busy = {now - std::min(idle, now)};
    // vCPUs and services are only taken away here, on CPU 0.
    if (auto const* const loaded = cpu.loaded.load(std::memory_order_acquire)) status.runs = loaded->identity();
    return status;
}

} // namespace

void run_virtual_machines(manage::Modules const& modules, vm::Backend& backend, config::FailureAction on_failure) {
    auto* const machine = new (std::nothrow) Machine(modules, backend, on_failure);
    if (machine == nullptr) kernel::refuse_to_start("there is too little memory", "add memory");
    release_cpus(kernel::run_cpu); // a VM that cannot be started is taken down with their help
    machine->start();
    kernel::run_cpu();
}

} // namespace boot
