// SPDX-License-Identifier: MIT
// What Mullion and its storage service do for a disk in memory. A request is measured from its begin to its end, HLT
// included, and the guest's own instructions, which a driver without a device tells, are taken off.
#include "runtime/virtio_disk.hpp"

#include "bench/measure.hpp"

#include "runtime/apic.hpp"

extern "C" {
void bench_isr_x2apic();
void bench_isr_xapic();
void bench_isr_without_eoi();
}

namespace bench {
namespace {

using guest::VirtioDisk;
constexpr u8 disk_vector = 0x62, pretended_vector = 0x63;
constexpr unsigned disk_samples = 400, restarts = 5;
constexpr u64 buffers = 32 * lib::MiB; // RAM that nothing else uses
constexpr u32 restart_gap = 200'000;   // ticks; a request without a restart takes less

constinit VirtioDisk disk{}, pretended{};
u32 exits = 0; // that the driver causes: doorbells and HLTs

void* buffer(u32 slot, u32 size) { return reinterpret_cast<void*>(buffers + u64{slot} * size); }

// A doorbell after which the guest sleeps until something has come back. The interrupt that ends the sleep, or came
// before it, is taken here.
[[gnu::always_inline]] inline void ring_and_sleep(VirtioDisk& driver, bool must_ring) {
    if (must_ring) {
        exits++;
        driver.ring_by_port();
    }
    while (driver.is_waiting()) {
        exits++;
        x86::sti_hlt();
        x86::cli();
    }
    guest::interrupt_window();
}

// The instructions of a real request without the three that exit; the interrupt comes without them.
[[gnu::always_inline]] inline void pretend_to_sleep(VirtioDisk& driver, bool must_ring) {
    if (must_ring) exits++;
    asm volatile("int %0" : : "i"(pretended_vector) : "memory");
    if (driver.is_waiting()) exits++;
    guest::interrupt_window();
}

struct Job {
    VirtioDisk::Type type;
    u32 size, depth;
};

// One round: `depth` requests, and all of them have come back. Returns its ticks.
template <typename Sleep> [[gnu::noinline]] u32 run_round(VirtioDisk& driver, Job job, u32 number, Sleep sleep) {
    u32 const start = ticks();
    for (u32 slot = 0; slot < job.depth; slot++) {
        u64 const sector = (u64{number} * job.depth + slot) * (job.size / 512) % (32 * lib::MiB / 512);
        driver.prepare(slot, job.type, sector, buffer(slot, job.size), job.size);
        driver.put(slot);
    }
    bool must_ring = driver.publish();
    for (u32 back = 0; back < job.depth; back += driver.take_back()) {
        sleep(driver, must_ring);
        must_ring = false;
    }
    return ticks() - start;
}

u32 guests_part(Job job) {
    for (unsigned i = 0; i < 64; i++) {
        pretended.pretend(static_cast<guest::u16>(job.depth));
        samples[i] = run_round(pretended, job, i, [](VirtioDisk& d, bool must) { pretend_to_sleep(d, must); });
    }
    std::make_heap(samples.begin(), samples.begin() + 64);
    std::sort_heap(samples.begin(), samples.begin() + 64);
    return samples[32];
}

u32 one_round(Job job, u32 number) {
    return run_round(disk, job, number, [](VirtioDisk& d, bool must) { ring_and_sleep(d, must); });
}

void measure_requests(std::string_view name, Job job) {
    std::string_view const only = guest::option("row"); // and more rounds of it, for a profile of the whole run
    if (!only.empty() && only != name) return;
    u32 const own = guests_part(job);
    for (u32 i = 0; i < guest::option_number("rounds", 32); i++)
        one_round(job, i);
    exits = 0;
    for (u32 i = 0; i < disk_samples; i++) {
        u32 const all = one_round(job, i);
        samples[i] = (all > own ? all - own : 0) / job.depth;
    }
    u32 const caused = exits * 100 / (disk_samples * job.depth);
    report(name, disk_samples, 0);
    guest::print("guest: {}: {} instructions of the guest in a round of {}, {}.{:02} doorbells and HLTs per request\n",
                 name, own, job.depth, caused / 100, caused % 100);
    if (disk.errors() != 0) guest::fail(name, 0, disk.errors());
}

// With nothing in the queue. The service sleeps at each first one, and at the others it has been told already.
template <typename Ring> void measure_doorbell(std::string_view name, std::string_view waking, Ring ring) {
    if (!guest::option("row").empty()) return;
    auto const sample = [&ring] {
        u32 const start = ticks();
        ring();
        return ticks() - start;
    };
    for (unsigned i = 0; i < disk_samples; i++) {
        one_round({VirtioDisk::Flush, 0, 1}, 0); // after that, the service sleeps
        samples[i] = sample();
    }
    report(waking, disk_samples, empty_pair);
    for (unsigned i = 0; i < disk_samples; i++) {
        if (i % 8 == 0) {
            one_round({VirtioDisk::Flush, 0, 1}, 0);
            ring();
        }
        samples[i] = sample();
    }
    report(name, disk_samples, empty_pair);
}

bool start() {
    bool const is_x2apic = guest::apic::enter_x2apic();
    if (!is_x2apic) guest::apic::enable();
    guest::set_raw_gate(disk_vector, is_x2apic ? bench_isr_x2apic : bench_isr_xapic);
    guest::set_raw_gate(pretended_vector, bench_isr_without_eoi);
    if (disk.start(disk_vector)) return true;
    guest::fail("a virtio disk starts", 1, 0);
    return false;
}

} // namespace

void disk_requests() {
    if (!start()) return;
    measure_requests("disk_doorbell_hlt", {VirtioDisk::Flush, 0, 1});
    measure_doorbell("disk_doorbell_port", "disk_doorbell_port_wakes", [] { disk.ring_by_port(); });
    measure_doorbell("disk_doorbell_mmio", "disk_doorbell_mmio_wakes", [] { disk.ring_by_memory(); });
    measure_requests("disk_read_4k", {VirtioDisk::Read, 4096, 1});
    measure_requests("disk_read_4k_depth32", {VirtioDisk::Read, 4096, 32});
    measure_requests("disk_write_4k", {VirtioDisk::Write, 4096, 1});
    measure_requests("disk_read_64k", {VirtioDisk::Read, 65536, 1});
}

// Reads until the service has come back so often. scripts/bench kills it each time.
void disk_restarts() {
    if (!start()) return;
    u32 number = 0;
    for (; number < 16; number++) // each later one takes the same time, and no kill comes before
        one_round({VirtioDisk::Read, 4096, 1}, number);
    guest::print("guest: reads\n");
    u32 last = ticks();
    for (u32 found = 0; found < restarts; number++) {
        one_round({VirtioDisk::Read, 4096, 1}, number);
        u32 const took = ticks() - last; // since the end before
        last += took;
        if (took < restart_gap) continue;
        samples[found++] = took;
        guest::print("guest: back after {} ticks\n", took);
        last = ticks();
    }
    report("disk_service_restart", restarts, 0);
}

} // namespace bench
