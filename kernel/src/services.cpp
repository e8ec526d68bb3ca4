// SPDX-License-Identifier: MIT
#include <algorithm>
#include <kernel/cpus.hpp>
#include <kernel/log.hpp>
#include <kernel/services.hpp>
#include <lib/service_board.hpp>

namespace kernel {
namespace {

// Two services, or a service and a VM, do not run on siblings of a core at once. VMs have the numbers below.
constexpr u32 first_group = 0x8000'0000;

constinit Services* the_services = nullptr;

bool is_name(std::string_view name) {
    auto const is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; };
    return !name.empty() && name.size() <= Services::longest_name && std::ranges::all_of(name, is_letter);
}

} // namespace

Services* machine_services() { return the_services; }
void set_machine_services(Services& services) { the_services = &services; }

u32 Services::add(std::string_view name, std::span<u8 const> program, ServiceHost* host) {
    if (!is_name(name)) {
        log_error("service {}: expected a name of 1 to {} small letters, digits and -", name, longest_name);
        return most;
    }
    if (find(name) != most) {
        log_error("service {}: there are two of that name; the second is left out", name);
        return most;
    }
    if (count_ == most) {
        log_error("service {}: is left out: there are {} already", name, most);
        return most;
    }
    auto const image = ServiceImage::parse(program);
    if (!image) {
        log_error("service {}: is not started: its file {}", name, image.error());
        return most;
    }
    Slot& slot = slots_[count_++];
    slot.name = name;
    slot.image = *image;
    slot.host = host;
    start(slot);
    return count_ - 1;
}

bool Services::start(Slot& slot) {
    auto made = Service::create(slot.name, slot.image, slot.instances + 1, slot.host, wake_);
    if (!made) {
        log_error("service {}: cannot be started: {}", slot.name, name_of(made.error()));
        return false;
    }
    ScheduleSettings settings;
    settings.allowed = CpuSet::first(cpu_count());
    (*made)->set_group(first_group + static_cast<u32>(&slot - slots_.data()));
    if (auto const added = scheduler().add(**made, settings); !added) {
        log_error("service {}: cannot be started: {}", slot.name,
                  added.error() == lib::Errc::Busy ? "VMs have all CPUs for themselves" : name_of(added.error()));
        return false;
    }
    slot.instances++;
    slot.running = std::move(*made);
    slot.target.store(slot.running.get(), std::memory_order_seq_cst);
    log_info("service {}: instance {} starts", slot.name, slot.instances);
    wake(*slot.running);
    return true;
}

void Services::bury(Slot& slot) {
    Service& dead = *slot.running;
    bool const was_killed = dead.was_killed();
    auto const removed = remove_runnable(dead);
    ASSERT(removed.has_value()); // it is stopped
    slot.used = dead.used();
    slot.last_end_size = dead.end().copy(slot.last_end.data(), slot.last_end.size());
    slot.target.store(nullptr, std::memory_order_seq_cst); // whoever has it is done before the destructor is
    slot.running = {};
    if (slot.host != nullptr) slot.host->ended();
    if (was_killed) return;
    slot.death_times[slot.deaths_that_count++ % most_deaths] = now().value;
    slot.deaths++;
}

// The oldest of the last deaths is the one that the next would replace.
bool Services::dies_too_often(Slot const& slot) const {
    u32 const count = slot.deaths_that_count;
    if (count < most_deaths) return false;
    return now().value - slot.death_times[count % most_deaths] < death_seconds * lib::nanos_per_second;
}

void Services::manage() {
    for (u32 i = 0; i < count_; i++) {
        Slot& slot = slots_[i];
        if (!slot.running || !slot.running->has_ended()) {
            change(slot);
            continue;
        }
        bool const was_killed = slot.running->was_killed();
        bury(slot);
        change(slot); // the next one finds it made
        if (!was_killed && dies_too_often(slot)) {
            log_error(
                "service {}: died {} times in {} s and stays down; \"service restart {}\" in the monitor starts it",
                slot.name, most_deaths, death_seconds, slot.name);
            continue;
        }
        start(slot);
    }
}

void Services::change(Slot& slot) {
    if (!slot.wants_change.load(std::memory_order_acquire)) return;
    u64 const time = now().value;
    if (time < slot.next_change) return arm_timer(change_timer_, tsc_of({slot.next_change}));
    if (slot.running && !slot.running->is_parked()) return slot.running->park();
    slot.next_change = time + change_milliseconds * lib::nanos_per_second / 1'000;
    slot.wants_change.store(false, std::memory_order_seq_cst); // what is asked for from now on is for the next time
    slot.host->change(slot.running.get());
    if (!slot.running) return;
    slot.running->post(lib::service::event_board);
    slot.running->release();
}

void Services::ask_for_change(u32 index) {
    if (!slots_[index].wants_change.exchange(true, std::memory_order_seq_cst)) wake_();
}

void Services::post(u32 index, u64 events) {
    InterruptGuard const no_interrupts;
    if (auto* const target = slots_[index].target.load(std::memory_order_seq_cst)) target->post(events);
}

ServiceStatus Services::status(u32 index) {
    Slot& slot = slots_[index];
    bool const runs = static_cast<bool>(slot.running);
    return {.name = slot.name,
            .is_running = runs,
            .instance = slot.instances,
            .deaths = slot.deaths,
            .cpu_time = runs ? scheduler().used(*slot.running, now().value) : slot.used,
            .memory = runs ? slot.running->memory() : 0,
            .last_end = {slot.last_end.data(), slot.last_end_size}};
}

u32 Services::find(std::string_view name) const {
    for (u32 i = 0; i < count_; i++)
        if (slots_[i].name == name) return i;
    return most;
}

bool Services::kill(u32 index) {
    Slot const& slot = slots_[index];
    if (!slot.running) return false;
    slot.running->kill();
    return true;
}

void Services::end(u32 index) {
    Slot& slot = slots_[index];
    if (slot.running && slot.running->has_ended()) bury(slot);
}

bool Services::restart(u32 index) {
    Slot& slot = slots_[index];
    slot.deaths_that_count = 0;
    return kill(index) || start(slot);
}

} // namespace kernel
