// SPDX-License-Identifier: MIT
// The monitor's commands about services.
#include <kernel/services.hpp>
#include <manage/monitor.hpp>

namespace manage {

void Monitor::offer_services(kernel::Completions& completions) {
    kernel::Services* const services = kernel::machine_services();
    for (u32 i = 0; services != nullptr && i < services->count(); i++)
        completions.offer(services->status(i).name);
}

bool Monitor::find_service(std::string_view name, u32& service) {
    kernel::Services* const services = kernel::machine_services();
    u32 const count = services != nullptr ? services->count() : 0;
    for (service = 0; service < count; service++)
        if (is_word(name, services->status(service).name)) return true;
    lib::format(terminal_, "there is no service {}; there {}", name, count == 0 ? "is none" : "are:");
    for (u32 i = 0; i < count; i++)
        lib::format(terminal_, " {}", services->status(i).name);
    terminal_.write("\n");
    return false;
}

void Monitor::service_list(Words const&) {
    kernel::Services* const services = kernel::machine_services();
    if (services == nullptr || services->count() == 0) return terminal_.write("there is no service\n");
    lib::format(terminal_, "{:<12} {:<8} {:>8} {:>6} {:>12} {:>10}  {}\n", "service", "state", "instance", "deaths",
                "CPU time ms", "memory KiB", "ended last");
    for (u32 i = 0; i < services->count(); i++) {
        auto const status = services->status(i);
        lib::format(terminal_, "{:<12} {:<8} {:>8} {:>6} {:>12} {:>10}  {}\n", status.name,
                    status.is_running ? "runs" : "down", status.instance, status.deaths, status.cpu_time / 1'000'000,
                    status.memory / lib::KiB, status.last_end);
    }
}

void Monitor::service_kill(Words const& arguments) {
    u32 service = 0;
    if (!find_service(arguments[0], service)) return;
    if (!kernel::machine_services()->kill(service))
        lib::format(terminal_, "{} is down: restart starts it\n", arguments[0]);
}

void Monitor::service_restart(Words const& arguments) {
    u32 service = 0;
    if (!find_service(arguments[0], service)) return;
    if (!kernel::machine_services()->restart(service))
        lib::format(terminal_, "{} cannot be started; the log says why\n", arguments[0]);
}

} // namespace manage
