// SPDX-License-Identifier: MIT
// A service's life, and what brings it back from ring 3. Its system calls: service_calls.cpp.
#include <algorithm>
#include <cstring>
#include <kernel/cpus.hpp>
#include <kernel/log.hpp>
#include <kernel/machine_check.hpp>
#include <kernel/page_table.hpp>
#include <kernel/service.hpp>
#include <lib/x86/registers.hpp>

namespace kernel {
namespace {

namespace x86 = lib::x86;
namespace service = lib::service;

constexpr u8 first_interrupt = 32;

// What differs while ring 3 runs on the calling CPU. Nothing else of Mullion ever sees it so.
class UserMode {
public:
    UserMode(UserContext& context, HostPhys root)
        : cr0_(x86::read_cr0()), cr4_(x86::read_cr4()), changes_table_(context.root == 0) {
        Cpu& here = this_cpu();
        context.cpu = &here;
        here.tables.tss.rsp[0] = context.stack_for_traps();
        here.tables.load_gdt();
        // The registers hold the state of the guest that ran here last. With TS, x87 and SSE are #NM; without OSXSAVE,
        // all later ones, XSAVE and XGETBV are #UD. [intel/vol3] 2.5, [intel/vol1] 13.2
        x86::write_cr0(cr0_ | x86::Cr0::TS::mask);
        if ((cr4_ & x86::Cr4::OSXSAVE::mask) != 0) x86::write_cr4(cr4_ & ~x86::Cr4::OSXSAVE::mask);
        set_tsc_aux(0);                                 // RDTSCP and RDPID would show the last guest's
        if (changes_table_) x86::write_cr3(root.value); // else enter_user() does it each time
    }
    ~UserMode() {
        if (changes_table_) x86::write_cr3(kernel_page_table().root().value);
        if ((cr4_ & x86::Cr4::OSXSAVE::mask) != 0) x86::write_cr4(cr4_);
        x86::write_cr0(cr0_);
    }
    UserMode(UserMode const&) = delete;
    UserMode& operator=(UserMode const&) = delete;

private:
    u64 cr0_, cr4_;
    bool changes_table_;
};

} // namespace

lib::Result<Own<Service>> Service::create(std::string_view name, ServiceImage const& image, u32 instance,
                                          ServiceHost* host, lib::Delegate<void()> changed) {
    Own<Service> made(new (std::nothrow) Service(name, host, changed));
    if (!made) return lib::fail(lib::Errc::NoMemory);
    TRY(made->build(image, instance));
    if (host != nullptr) TRY(host->furnish(*made));
    return made;
}

lib::Result<void> Service::build(ServiceImage const& image, u32 instance) {
    context_ = Own<UserContext>(new (std::nothrow) UserContext);
    if (!context_) return lib::fail(lib::Errc::NoMemory);
    TRY(space_.create(*context_));
    if (has_service_page_tables()) {
        context_->root = space_.root().value;
        context_->kernel_root = kernel_page_table().root().value;
    }
    for (ServiceSegment const& segment : image.segments())
        TRY(space_.add(segment.at, segment.size, segment.rights, segment.bytes));
    TRY(space_.add(service::stack_end - service::stack_size, service::stack_size, Rights::ReadWrite));
    TRY(space_.add(service::heap_begin, heap_size, Rights::ReadWrite));
    handler_limit_ = tsc_scale().to_ticks(handler_milliseconds * 1'000'000);
    TRY(add_manifest(instance));
    TrapFrame& frame = context_->frame;
    frame.rip = image.entry();
    frame.cs = user_code_selector;
    frame.rflags = 2 | x86::Rflags::IF::mask;
    frame.rsp = service::stack_end - 8; // as after a CALL
    frame.ss = user_data_selector;
    watchdog_.set_callback(Timer::Callback::to<&Service::watchdog_rang>(*this));
    deadline_timer_.set_callback(Timer::Callback::to<&Service::deadline_passed>(*this));
    watchdog_.set_payer(this);
    deadline_timer_.set_payer(this);
    log_credit_ = log_burst * tsc_scale().to_ticks(log_milliseconds * 1'000'000);
    log_credit_at_ = x86::rdtsc();
    return {};
}

lib::Result<void> Service::add_manifest(u32 instance) {
    service::Manifest manifest{.version = service::abi_version,
                               .instance = instance,
                               .heap_begin = service::heap_begin,
                               .heap_size = heap_size,
                               .tsc_hz = tsc_scale().hz(),
                               .tsc_at_zero = tsc_at_time_zero(),
                               .handler_limit = handler_limit_,
                               .name = {}};
    auto const length = std::min(name_.size(), sizeof(manifest.name) - 1);
    std::memcpy(manifest.name, name_.data(), length);
    return space_.add(service::manifest_at, lib::page_size, Rights::Read,
                      {reinterpret_cast<u8 const*>(&manifest), sizeof(manifest)});
}

Service::~Service() {
    cancel_timer(watchdog_);
    cancel_timer(deadline_timer_);
    wait_for_other_cpus(); // one of them may be calling back
}

void Service::post(u64 events) {
    u64 const before = events_.fetch_or(events, std::memory_order_seq_cst);
    // Another CPU posted the same, and wakes the service where that is needed. What takes them then is an atomic
    // exchange of the same word, so the service sees what the guest wrote before either call.
    if ((before & events) == events) return;
    // Either this sees the mask, or end_wait(), which stores the mask first, sees the events.
    if ((waiting_for_.load(std::memory_order_seq_cst) & events) != 0) wake(*this);
}

void Service::kill() {
    is_killed_.store(true, std::memory_order_seq_cst);
    u32 const where = running_on_.load(std::memory_order_seq_cst);
    if (where != nowhere) request_attention(where);
    wake(*this);
}

// The CPU that runs it says is_parked_ at the end of run(), perhaps late: then it still is, as it has not run since.
void Service::park() {
    is_parked_.store(false, std::memory_order_seq_cst);
    is_to_park_.store(true, std::memory_order_seq_cst);
    wake(*this);
}

void Service::release() {
    is_to_park_.store(false, std::memory_order_seq_cst);
    wake(*this);
}

bool Service::has_wake_event() {
    if (is_killed_.load(std::memory_order_seq_cst)) return true;
    // park() and release() wake it by themselves.
    if (is_to_park_.load(std::memory_order_seq_cst)) return !is_parked_.load(std::memory_order_seq_cst);
    if ((events_.load(std::memory_order_seq_cst) & waiting_for_.load(std::memory_order_relaxed)) != 0) return true;
    return x86::rdtsc() >= deadline_;
}

RunResult Service::run() {
    running_on_.store(this_cpu().index, std::memory_order_seq_cst);
    RunResult const result = go_on();
    running_on_.store(nowhere, std::memory_order_seq_cst);
    // Only now does this CPU no longer walk the service's tables.
    if (result == RunResult::Sleep && is_to_park_.load(std::memory_order_seq_cst)) {
        is_parked_.store(true, std::memory_order_seq_cst);
        changed_();
    }
    return result;
}

RunResult Service::go_on() {
    if (is_killed_.load(std::memory_order_seq_cst)) return die();
    if (is_waiting_ && (is_to_park_.load(std::memory_order_seq_cst) || !end_wait())) return sleep();
    UserMode const user_mode(*context_, space_.root());
    for (;;) {
        if (is_killed_.load(std::memory_order_seq_cst)) return die();
        if (is_work_pending()) return RunResult::Work;
        if (!is_watchdog_armed_.load(std::memory_order_relaxed)) arm_watchdog();
        if (auto const result = handle_trap()) return *result;
    }
}

// Once through ring 3. Nothing: it goes on there.
std::optional<RunResult> Service::handle_trap() {
    u64 const begin = x86::rdtsc();
    x86::enter_user(context_.get());
    u64 const cr2 = x86::read_cr2(); // before an interrupt's handler
    handler_ticks_ += x86::rdtsc() - begin;
    auto const vector = static_cast<u8>(context_->frame.vector);
    if (vector == service::system_call_vector) return system_call();
    if (vector == x86::exception_mc) return machine_check();
    if (vector < first_interrupt) return fault(cr2);
    dispatch_interrupt(vector);
    if (handler_ticks_ < handler_limit_) return std::nullopt;
    end_size_ = lib::format_to(end_, "did not come back to wait() in {} ms of CPU time", handler_milliseconds).size();
    return die();
}

void Service::unload() {
    cancel_timer(watchdog_); // another CPU arms it again
    is_watchdog_armed_.store(false, std::memory_order_relaxed);
}

void Service::stopped() {
    auto const changed = changed_;
    has_ended_.store(true, std::memory_order_release); // it may be gone from here on
    changed();
}

// Its interrupt brings the CPU back from a loop, which has no other end when nobody else wants this CPU.
void Service::arm_watchdog() {
    is_watchdog_armed_.store(true, std::memory_order_relaxed);
    arm_timer(watchdog_, x86::rdtsc() + (handler_limit_ - std::min(handler_ticks_, handler_limit_)));
}

RunResult Service::die() {
    if (is_killed_.load(std::memory_order_relaxed)) {
        end_size_ = lib::format_to(end_, "killed").size();
        log_warning("service {}: {}", name_, end());
    } else {
        log_error("service {}: {}", name_, end());
        log_registers();
        log_backtrace();
    }
    if (dropped_lines_ != 0) log_warning("service {}: {} lines of its log were dropped", name_, dropped_lines_);
    return RunResult::Stopped;
}

RunResult Service::fault(u64 cr2) {
    constexpr u64 written = 1U << 1, fetched = 1U << 4;
    TrapFrame const& frame = context_->frame;
    auto const vector = static_cast<u8>(frame.vector);
    lib::BufferSink sink(end_);
    lib::format(sink, "{} at {:#x}", name_of_exception(vector), frame.rip);
    if (vector == x86::exception_pf)
        lib::format(sink, ", {} {:#x}",
                    (frame.error_code & fetched) != 0   ? "executing"
                    : (frame.error_code & written) != 0 ? "writing"
                                                        : "reading",
                    cr2);
    if (frame.error_code != 0) lib::format(sink, ", error {:#x}", frame.error_code);
    end_size_ = sink.view().size();
    return die();
}

// The machine reports damage while the service runs. What is not lost as a whole costs this instance only.
std::optional<RunResult> Service::machine_check() {
    if (take_machine_check("a service") == MachineCheck::Kind::Elsewhere) return std::nullopt;
    end_size_ = machine_check_end.copy(end_.data(), end_.size());
    return die();
}

void Service::log_registers() const {
    TrapFrame const& f = context_->frame;
    log_error("  rip {:016x} rsp {:016x} rbp {:016x} rflags {:x}", f.rip, f.rsp, f.rbp, f.rflags);
    log_error("  rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}", f.rax, f.rbx, f.rcx, f.rdx);
    log_error("  rsi {:016x} rdi {:016x} r8  {:016x} r9  {:016x}", f.rsi, f.rdi, f.r8, f.r9);
    log_error("  r10 {:016x} r11 {:016x} r12 {:016x} r13 {:016x}", f.r10, f.r11, f.r12, f.r13);
    log_error("  r14 {:016x} r15 {:016x}", f.r14, f.r15);
}

// Return addresses for llvm-symbolizer, from the service's own file. The chain is the service's: it may be anything.
void Service::log_backtrace() const {
    constexpr unsigned most_frames = 12;
    std::array<char, 256> text{};
    lib::BufferSink sink(text);
    u64 rbp = context_->frame.rbp;
    for (unsigned i = 0; i < most_frames; i++) {
        std::array<u64, 2> frame{};
        if (rbp % 8 != 0 || !space_.read(rbp, {reinterpret_cast<u8*>(frame.data()), sizeof(frame)})) break;
        if (frame[1] == 0) break;
        lib::format(sink, " {:#x}", frame[1]);
        if (frame[0] <= rbp) break; // callers are further up
        rbp = frame[0];
    }
    if (!sink.view().empty()) log_error("  called from{}", sink.view());
}

} // namespace kernel
