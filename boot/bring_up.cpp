// SPDX-License-Identifier: MIT
#include <algorithm>
#include <atomic>
#include <boot/bring_up.hpp>
#include <boot/image.hpp>
#include <cstring>
#include <kernel/apic.hpp>
#include <kernel/cpus.hpp>
#include <kernel/direct_map.hpp>
#include <kernel/heap.hpp>
#include <kernel/log.hpp>
#include <kernel/page_table.hpp>
#include <kernel/time.hpp>
#include <kernel/topology.hpp>
#include <kernel/tsc_sync.hpp>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>

extern "C" {
extern char const ap_trampoline[], ap_trampoline_end[], ap_protected_mode[], ap_long_mode[], ap_gdt[], ap_gdt_end[],
    ap_parameters[];
}

namespace boot {
namespace {

namespace x86 = lib::x86;
using lib::HostPhys;
using lib::HostVirt;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

constexpr u64 microsecond = 1'000;
constexpr u64 millisecond = 1'000'000;
// [intel/vol3] 9.4.4: INIT, 10 ms, SIPI, 200 us, SIPI. What follows is for emulators and overcommitted hosts.
constexpr u64 after_init = 10 * millisecond;
constexpr u64 until_second_startup = 1 * millisecond;
constexpr u64 until_silent = 200 * millisecond;
constexpr u64 until_ready = 3'000 * millisecond;
// Enough rounds for one without a disturbance; more where a host shares its CPUs with others.
constexpr unsigned probe_rounds = 64;
constexpr u64 probe_good = 2 * microsecond;
constexpr u64 probe_time = 200 * millisecond;
constexpr u32 stack_pages = 4;
constexpr u32 xapic_broadcast = 0xff;

// At ap_parameters of boot/ap_trampoline.S.
struct [[gnu::packed]] TrampolineParameters {
    u32 claimed;
    u32 base;
    u32 cr3;
    u32 efer;
    u32 protected_entry;
    u16 protected_selector;
    u16 gdt_limit;
    u32 gdt_base;
    u32 long_entry;
    u16 long_selector;
    u16 reserved[3];
    u64 stack;
    u64 argument;
    u64 entry;
};
static_assert(sizeof(TrampolineParameters) == 64);

enum class State : u8 { Starting, Probing, Preparing, Refused, Running, Abandoned };

// What CPU 0 and the one that starts tell each other.
struct Start {
    kernel::Cpu* cpu = nullptr;
    u32 index = 0;
    std::atomic<State> state{State::Starting};
    kernel::TscProbe probe;
    vm::Refusal refusal{};
};

constinit Start start;
constinit lib::Delegate<std::expected<void, vm::Refusal>()> prepare_cpu;
constinit HostVirt trampoline_page{};
constinit std::atomic<void (*)()> main_loop_of_all{nullptr};

template <typename Condition> bool wait_for(u64 nanos, Condition condition) {
    u64 const begin = x86::rdtsc();
    u64 const ticks = kernel::tsc_scale().to_ticks(nanos);
    while (!condition()) {
        if (x86::rdtsc() - begin >= ticks) return false;
        x86::pause();
    }
    return true;
}

[[noreturn]] void park() {
    for (;;) {
        x86::cli();
        x86::hlt();
    }
}

// Moves on from `from`; parks this CPU when CPU 0 has given it up.
void step(State from, State to) {
    if (!start.state.compare_exchange_strong(from, to, std::memory_order_acq_rel)) park();
}

// The C++ side of a CPU's start, on its own stack.
[[noreturn]] void ap_main() {
    kernel::Cpu& cpu = *start.cpu;
    kernel::initialise_cpu(cpu, start.index);
    kernel::enable_cpu_protections();
    // The mapping of the trampoline is global: it must not outlive its page-table entry in this TLB.
    x86::invlpg(trampoline_page.value);
    if (!kernel::LocalApic::enable(kernel::local_apic().is_x2apic())) park();
    cpu.apic_id = kernel::local_apic().id();
    step(State::Starting, State::Probing);
    start.probe.answer();
    if (prepare_cpu) {
        if (auto const done = prepare_cpu(); !done) {
            start.refusal = done.error();
            step(State::Preparing, State::Refused);
            park();
        }
    }
    step(State::Preparing, State::Running);
    void (*main_loop)() = nullptr;
    // Halted meanwhile: where a host shares its CPUs among these, one that spins holds up CPU 0.
    while ((main_loop = main_loop_of_all.load(std::memory_order_acquire)) == nullptr) {
        x86::sti_hlt();
        x86::cli();
    }
    x86::invlpg(trampoline_page.value); // prefetched meanwhile, for all we know
    main_loop();
    park();
}

class Trampoline {
public:
    explicit Trampoline(HostPhys page) : page_(page) {}

    lib::Result<void> install() {
        auto* const at = kernel::phys_to_virt<u8>(page_);
        std::memset(at, 0, lib::page_size);
        std::memcpy(at, ap_trampoline, static_cast<std::size_t>(ap_trampoline_end - ap_trampoline));
        u64 const root = kernel::kernel_page_table().root().value;
        if (root >> 32 != 0) return lib::fail(lib::Errc::OutOfRange); // CR3 is loaded from 32-bit mode
        auto& p = parameters();
        p.base = static_cast<u32>(page_.value);
        p.cr3 = static_cast<u32>(root);
        p.efer = x86::Efer::LME::mask | (kernel::cpu_features().no_execute ? u32{x86::Efer::NXE::mask} : 0);
        p.protected_entry = address_of(ap_protected_mode);
        p.long_entry = address_of(ap_long_mode);
        p.gdt_base = address_of(ap_gdt);
        p.gdt_limit = static_cast<u16>(ap_gdt_end - ap_gdt - 1);
        p.entry = reinterpret_cast<u64>(&ap_main);
        trampoline_page = HostVirt{page_.value};
        return kernel::kernel_page_table().map(trampoline_page, page_, lib::page_size, kernel::Rights::ReadExecute);
    }
    void remove() {
        kernel::kernel_page_table().unmap_page(trampoline_page);
        std::memset(kernel::phys_to_virt<u8>(page_), 0, lib::page_size);
    }
    void arm(u64 stack_top) {
        parameters().stack = stack_top;
        std::atomic_ref<u32>(claimed()).store(0, std::memory_order_release);
    }
    void disarm() { std::atomic_ref<u32>(claimed()).store(1, std::memory_order_release); }
    bool is_claimed() { return std::atomic_ref<u32>(claimed()).load(std::memory_order_acquire) != 0; }
    u8 vector() const { return static_cast<u8>(page_.value >> 12); }

private:
    u32 address_of(char const* symbol) const {
        return static_cast<u32>(page_.value) + static_cast<u32>(symbol - ap_trampoline);
    }
    TrampolineParameters& parameters() {
        return *kernel::phys_to_virt<TrampolineParameters>(page_ + static_cast<u64>(ap_parameters - ap_trampoline));
    }
    u32& claimed() { return *kernel::phys_to_virt<u32>(page_ + static_cast<u64>(ap_parameters - ap_trampoline)); }
    HostPhys page_;
};

class CpuStarter {
public:
    explicit CpuStarter(BringUp const& request) : request_(request), trampoline_(request.startup_page) {}

    void run() {
        u32 const own = kernel::this_cpu().apic_id;
        kernel::machine_topology().add(0, own, domain_of(own));
        u32 const wanted = request_.limit == 0 ? kernel::max_cpus : std::min<u32>(request_.limit, kernel::max_cpus);
        u32 candidates = 0;
        for (auto const& cpu : request_.acpi.cpus)
            candidates += is_candidate(cpu) ? 1 : 0;
        if (wanted > 1 && candidates > 0) start_all(wanted);
        report(candidates + 1);
    }

private:
    bool is_candidate(drivers::AcpiCpu const& cpu) const {
        return cpu.is_enabled && cpu.apic_id != kernel::this_cpu().apic_id;
    }
    bool is_addressable(drivers::AcpiCpu const& cpu) const {
        return kernel::local_apic().is_x2apic() || cpu.apic_id < xapic_broadcast;
    }
    u32 domain_of(u32 apic_id) const {
        for (auto const& cpu : request_.acpi.cpus)
            if (cpu.apic_id == apic_id) return cpu.domain;
        return drivers::AcpiCpu::no_domain;
    }

    void start_all(u32 wanted) {
        if (request_.startup_page.value == 0 || !trampoline_.install()) {
            kernel::log_warning("cpus: no usable page below 1 MiB, so the other CPUs cannot be started");
            return;
        }
        auto const& apic = kernel::local_apic();
        for (auto const& cpu : request_.acpi.cpus)
            if (is_candidate(cpu) && is_addressable(cpu)) apic.send_init(cpu.apic_id);
        wait_for(after_init, [] { return false; });
        for (auto const& cpu : request_.acpi.cpus) {
            if (!is_candidate(cpu)) continue;
            if (kernel::cpu_count() >= wanted) break;
            if (!is_addressable(cpu)) {
                kernel::log_warning("cpus: APIC id {} is beyond what this machine's xAPIC mode reaches; left out. Turn "
                                    "x2APIC on in the firmware",
                                    cpu.apic_id);
            } else if (auto const started = start_one(cpu); !started) {
                kernel::log_warning("cpus: the CPU with APIC id {} is left out: {} ({})", cpu.apic_id,
                                    started.error().what, started.error().remedy);
            }
        }
        trampoline_.remove();
    }

    std::expected<void, vm::Refusal> start_one(drivers::AcpiCpu const& acpi_cpu) {
        constexpr vm::Refusal no_memory{"too little memory", "add memory"};
        u32 const index = kernel::cpu_count();
        kernel::Own<kernel::Cpu> cpu(new (std::nothrow) kernel::Cpu);
        if (!cpu) return std::unexpected(no_memory);
        auto const stack = kernel::allocate_stack(stack_pages);
        if (!stack) return std::unexpected(no_memory);
        cpu->stack_top = stack->value;
        start.cpu = cpu.get();
        start.index = index;
        start.probe.reset();
        start.state.store(State::Starting, std::memory_order_relaxed);
        trampoline_.arm(cpu->stack_top);
        // From here on the CPU may hold on to its data whatever becomes of it: it is never freed.
        kernel::Cpu& started = *cpu.release();
        auto const result = launch(acpi_cpu.apic_id);
        trampoline_.disarm();
        if (!result) return result;
        kernel::register_cpu(started);
        kernel::machine_topology().add(index, started.apic_id, acpi_cpu.domain);
        return {};
    }

    std::expected<void, vm::Refusal> launch(u32 apic_id) {
        auto const& apic = kernel::local_apic();
        auto const is_claimed = [&] { return trampoline_.is_claimed(); };
        apic.send_startup(apic_id, trampoline_.vector());
        if (!wait_for(until_second_startup, is_claimed)) {
            apic.send_startup(apic_id, trampoline_.vector());
            if (!wait_for(until_silent, is_claimed)) return give_up(apic_id);
        }
        if (!wait_for(until_ready, [] { return start.state.load(std::memory_order_acquire) != State::Starting; }))
            return give_up(apic_id);
        kernel::TscSkew const skew = measure_and_correct(apic_id);
        State probing = State::Probing;
        if (skew.within == kernel::TscSkew::unknown || !start.state.compare_exchange_strong(probing, State::Preparing))
            return give_up(apic_id);
        start.probe.end();
        if (!wait_for(until_ready, [] { return start.state.load(std::memory_order_acquire) != State::Preparing; }))
            return give_up(apic_id);
        if (start.state.load(std::memory_order_acquire) == State::Refused) return std::unexpected(start.refusal);
        note(apic_id, skew);
        return {};
    }

    std::unexpected<vm::Refusal> give_up(u32 apic_id) {
        // Whatever it is doing, it must not go on: INIT takes it back to waiting for SIPI.
        start.state.store(State::Abandoned, std::memory_order_release);
        start.probe.end();
        kernel::local_apic().send_init(apic_id);
        wait_for(until_second_startup, [] { return false; });
        return std::unexpected(vm::Refusal{"it does not answer", "update the firmware"});
    }

    kernel::TscSkew measure_and_correct(u32 apic_id) {
        auto const ticks = [](u64 nanos) { return kernel::tsc_scale().to_ticks(nanos); };
        auto const measure = [&] { return start.probe.measure(ticks(probe_time), probe_rounds, ticks(probe_good)); };
        kernel::TscSkew skew = measure();
        if (!kernel::cpu_features().tsc_adjust || !skew.is_noticeable(ticks(microsecond))) return skew;
        if (!start.probe.correct(skew, ticks(probe_time))) return {};
        u64 const size = size_in_nanos(skew);
        kernel::log_info("cpus: the TSC of APIC id {} was {} ns {} CPU 0's; corrected", apic_id, size,
                         skew.ticks < 0 ? "behind" : "ahead of");
        return measure();
    }
    static u64 size_in_nanos(kernel::TscSkew const& skew) {
        return kernel::tsc_scale().to_nanos(static_cast<u64>(skew.ticks < 0 ? -skew.ticks : skew.ticks));
    }

    void note(u32 apic_id, kernel::TscSkew const& skew) {
        u64 const size = size_in_nanos(skew);
        u64 const within = kernel::tsc_scale().to_nanos(skew.within);
        char const* const where = skew.ticks < 0 ? "behind" : "ahead of";
        kernel::log_debug("cpus: APIC id {}: TSC {} ns {} CPU 0's, measured within {} ns", apic_id, size, where,
                          within);
        if (size <= within + microsecond) {
            worst_uncertainty_ = std::max(worst_uncertainty_, size + within);
            return;
        }
        kernel::log_warning("cpus: the TSC of APIC id {} is {} ns {} CPU 0's: guests with vCPUs on both see time jump",
                            apic_id, size, where);
    }

    void report(u32 present) const {
        auto const& topology = kernel::machine_topology();
        u32 const count = kernel::cpu_count();
        kernel::log_info("cpus: {} of {} in use, {} core{}, {} NUMA node{}", count, present, topology.core_count(),
                         topology.core_count() == 1 ? "" : "s", topology.node_count(),
                         topology.node_count() == 1 ? "" : "s");
        if (count > 1) kernel::log_tsc_agreement(worst_uncertainty_);
    }

    BringUp const& request_;
    Trampoline trampoline_;
    u64 worst_uncertainty_ = 0; // of those that do not differ as far as could be measured; ns
};

} // namespace

void bring_up_cpus(BringUp const& request) {
    prepare_cpu = request.prepare;
    kernel::machine_topology().set_levels(
        kernel::read_topology_levels(kernel::TopologyCpuid::to_function<lib::x86::cpuid>()));
    CpuStarter(request).run();
}

void release_cpus(void (*main_loop)()) {
    main_loop_of_all.store(main_loop, std::memory_order_release);
    for (u32 index = 0; index < kernel::cpu_count(); index++)
        kernel::kick(index);
}

} // namespace boot
