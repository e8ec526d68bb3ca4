// SPDX-License-Identifier: MIT
// The system calls. Every argument is hostile: what is not right is answered, not believed.
#include <algorithm>
#include <kernel/log.hpp>
#include <kernel/service.hpp>
#include <lib/x86/instructions.hpp>

namespace kernel {
namespace {

namespace x86 = lib::x86;
namespace service = lib::service;
using service::Answer;
using service::Call;

// What a service says stays within its line, and cannot drive the operator's terminal.
void make_printable(std::span<char> text) {
    std::ranges::replace_if(text, [](char c) { return c < ' ' || c > '~'; }, '?');
}

} // namespace

std::optional<RunResult> Service::system_call() {
    TrapFrame& frame = context_->frame;
    switch (Call{frame.rax}) {
    case Call::Stop: return stop(frame.rdi, frame.rsi);
    case Call::Wait: return wait(frame.rdi, frame.rsi);
    case Call::Log: frame.rax = static_cast<u64>(log_line(frame.rdi, frame.rsi)); return std::nullopt;
    case Call::Interrupt:
    case Call::Misuse:
    case Call::Stopped:
    case Call::BusMaster:
    case Call::ReadPort:
    case Call::WritePort:
    case Call::Catalogue:
    case Call::ReadConfiguration:
        frame.rax = host_ != nullptr ? host_->call(Call{frame.rax}, frame.rdi, frame.rsi)
                                     : static_cast<u64>(Answer::NoSuchDevice);
        return std::nullopt;
    }
    frame.rax = static_cast<u64>(Answer::NoSuchCall);
    return std::nullopt;
}

std::optional<RunResult> Service::wait(u64 mask, u64 deadline) {
    handler_ticks_ = 0;
    is_waiting_ = true;
    wait_mask_ = mask;
    deadline_ = deadline;
    waiting_for_.store(mask, std::memory_order_seq_cst); // has_wake_event() asks for it, even if it is parked first
    if (!is_to_park_.load(std::memory_order_seq_cst) && end_wait()) return std::nullopt;
    return sleep();
}

RunResult Service::sleep() {
    if (deadline_ != service::no_deadline) arm_timer(deadline_timer_, deadline_);
    return RunResult::Sleep;
}

// False: nothing has come yet.
bool Service::end_wait() {
    waiting_for_.store(wait_mask_, std::memory_order_seq_cst);
    u64 const come = events_.load(std::memory_order_seq_cst) & wait_mask_;
    if (come == 0 && x86::rdtsc() < deadline_) return false;
    waiting_for_.store(0, std::memory_order_relaxed);
    events_.fetch_and(~come, std::memory_order_acq_rel);
    is_waiting_ = false;
    deadline_ = service::no_deadline;
    context_->frame.rax = come;
    return true;
}

bool Service::may_log() {
    u64 const price = tsc_scale().to_ticks(log_milliseconds * 1'000'000);
    u64 const now = x86::rdtsc();
    log_credit_ = std::min(log_credit_ + (now - log_credit_at_), log_burst * price);
    log_credit_at_ = now;
    if (log_credit_ < price) {
        dropped_lines_++;
        return false;
    }
    log_credit_ -= price;
    return true;
}

Answer Service::log_line(u64 at, u64 size) {
    std::array<char, service::longest_line> text{};
    if (size > text.size()) return Answer::TooLong;
    std::span<char> const line(text.data(), size);
    if (!space_.read(at, {reinterpret_cast<u8*>(line.data()), line.size()})) return Answer::BadAddress;
    if (!may_log()) return Answer::TooMany;
    make_printable(line);
    log_info("service {}: {}", name_, std::string_view(line.data(), line.size()));
    return Answer::Done;
}

RunResult Service::stop(u64 at, u64 size) {
    std::array<char, 120> text{};
    std::span<char> const reason(text.data(), std::min<u64>(size, text.size()));
    bool const is_readable = space_.read(at, {reinterpret_cast<u8*>(reason.data()), reason.size()});
    make_printable(reason);
    std::string_view const said =
        is_readable ? std::string_view(reason.data(), reason.size()) : "for a reason that it does not have";
    end_size_ = lib::format_to(end_, "stopped: {}", said).size();
    return die();
}

} // namespace kernel
