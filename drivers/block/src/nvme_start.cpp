// SPDX-License-Identifier: MIT
// The start of an NVMe controller, and its way back after a reset. [nvme/1.4] 7.6.1
#include <algorithm>
#include <cstring>

#include "nvme_layout.hpp"
#include "printable.hpp"

namespace block {

using namespace nvme;

namespace {

template <typename T> T load(u8 const* from) {
    T value;
    std::memcpy(&value, from, sizeof(T));
    return value;
}

} // namespace

void Nvme::wait(Step step, u64 now, u64 limit) {
    step_ = step;
    step_limit_ = now + milliseconds(limit);
    deadline_ = now + milliseconds(1);
}

void Nvme::start(u64 now) {
    deadline_ = now + milliseconds(1);
    if (step_ == Step::Begin) return begin(now);
    Csts const status{{read(CSTS)}};
    if (status.raw == ~0U) return fail("is gone");
    bool const is_ready = status.get<Csts::RDY>();
    if (step_ == Step::WaitForOldStart && (is_ready || status.get<Csts::CFS>())) return stop(now);
    if (step_ == Step::WaitForStop && !is_ready) return enable(now);
    if (step_ > Step::WaitForStop && status.get<Csts::CFS>()) return reset(now, "it reports a fatal error");
    if (step_ == Step::WaitForStart && is_ready) return next_admin(Step::IdentifyController, now);
    if (step_ > Step::WaitForStart && take_admin(now)) return;
    if (now < step_limit_) return;
    if (step_ == Step::WaitForOldStart) return stop(now);
    if (step_ == Step::WaitForStop) return fail("does not stop");
    if (step_ == Step::WaitForStart) return fail("does not start");
    reset(now, "it does not answer a command of its start");
}

void Nvme::begin(u64 now) {
    if (function_.bar_size(0) < doorbells) return fail("has too few registers");
    Cap const cap{{read(CAP) | u64{read(CAP + 4)} << 32}};
    if (cap.raw == ~u64{0}) return fail("does not answer");
    if (!cap.get<Cap::NvmCommandSet>()) return fail("does not have the NVM command set");
    if (cap.get<Cap::MPSMIN>() != 0) return fail("does not have pages of 4 KiB");
    if (shared_.bytes.size() < shared_pages * lib::page_size) return fail("got too little memory");
    u32 const most = static_cast<u32>(cap.get<Cap::MQES>()) + 1;
    if (most < 2) return fail("has queues of one entry");
    doorbell_stride_ = 4U << cap.get<Cap::DSTRD>();
    if (function_.bar_size(0) < doorbells + 4 * u64{doorbell_stride_}) return fail("has too few registers");
    start_limit_ = std::max<u64>(cap.get<Cap::TO>(), 2) * 500;
    admin_ = {.page = admin_page, .entry_count = admin_entries};
    io_ = {.page = io_page, .entry_count = std::min(entries, most)};
    Csts const status{{read(CSTS)}};
    bool const is_on = Cc{{read(CC)}}.get<Cc::EN>();
    if (is_on && !status.get<Csts::RDY>() && !status.get<Csts::CFS>())
        return wait(Step::WaitForOldStart, now, start_limit_);
    stop(now);
}

void Nvme::stop(u64 now) {
    Cc control{{read(CC)}};
    if (control.get<Cc::EN>()) {
        control.set<Cc::EN>(false);
        write(CC, control.raw);
    }
    wait(Step::WaitForStop, now, start_limit_);
}

// It has stopped: nothing is left of what it did for others.
void Nvme::enable(u64 now) {
    function_.set_bus_master(true);
    std::memset(page(0), 0, first_list_page * lib::page_size);
    write(AQA, (admin_entries - 1) << 16 | (admin_entries - 1));
    write64(ASQ, page_address(admin_page));
    write64(ACQ, page_address(admin_page + 1));
    Cc control{};
    control.set<Cc::EN>(true);
    control.set<Cc::IOSQES>(6);
    control.set<Cc::IOCQES>(4);
    write(CC, control.raw);
    found_count_ = listed_count_ = asked_ = 0;
    has_other_disks_ = false;
    wait(Step::WaitForStart, now, start_limit_);
}

// Gives the command of this step to the controller.
void Nvme::next_admin(Step step, u64 now) {
    Submission& out = next_submission(admin_);
    out = {};
    out.prp1 = page_address(identify_page);
    u8 opcode = IDENTIFY;
    if (step == Step::IdentifyController) {
        out.cdw10 = CNS_CONTROLLER;
    } else if (step == Step::ListNamespaces) {
        out.cdw10 = CNS_LIST;
    } else if (step == Step::IdentifyNamespace) {
        out.cdw10 = CNS_NAMESPACE;
        out.nsid = listed_[asked_];
    } else if (step == Step::SetQueueCount) {
        opcode = SET_FEATURES;
        out.prp1 = 0;
        out.cdw10 = number_of_queues; // cdw11: one of each kind
    } else {
        bool const is_submission = step == Step::CreateSubmissionQueue;
        opcode = is_submission ? CREATE_SUBMISSION_QUEUE : CREATE_COMPLETION_QUEUE;
        out.prp1 = page_address(io_page + (is_submission ? 0 : 1));
        out.cdw10 = (io_.entry_count - 1) << 16 | 1;
        // Contiguous; for completion queue 1, or with interrupts by vector 0. [nvme/1.4] 5.3, 5.4
        out.cdw11 = is_submission ? 1U << 16 | 1 : 1U << 1 | 1;
    }
    std::memset(page(identify_page), 0, lib::page_size);
    out.cdw0 = opcode | static_cast<u32>(step) << 16;
    push(admin_);
    ring_tail(admin_, 0);
    wait(step, now, admin_seconds * 1'000);
}

// False: the command of this step has not ended yet.
bool Nvme::take_admin(u64 now) {
    Completion done{};
    if (!take(admin_, done)) return false;
    ring_head(admin_, 0);
    if (done.id != static_cast<u32>(step_)) {
        reset(now, "it ended a command that nobody gave it");
        return true;
    }
    u32 const status = done.status >> 1 & 0x7ff;
    if (status != 0)
        admin_refused(status, now);
    else
        admin_done(now);
    return true;
}

void Nvme::admin_refused(u32 status, u64 now) {
    char text[80];
    if (step_ == Step::ListNamespaces) { // controllers before version 1.1: all numbers
        for (u32 id = 1; id <= std::min(announced_, max_namespaces); id++)
            listed_[listed_count_++] = id;
        return next_namespace(now);
    }
    function_.log(
        lib::format_to(text, "step {} of its start ended with status {:#x}", static_cast<u32>(step_), status));
    if (step_ == Step::IdentifyNamespace) {
        asked_++;
        return next_namespace(now);
    }
    fail("refused a command of its start");
}

void Nvme::admin_done(u64 now) {
    switch (step_) {
    case Step::IdentifyController: read_controller(); return next_admin(Step::ListNamespaces, now);
    case Step::ListNamespaces: read_list(); return next_namespace(now);
    case Step::IdentifyNamespace:
        read_namespace();
        asked_++;
        return next_namespace(now);
    case Step::SetQueueCount: return next_admin(Step::CreateCompletionQueue, now);
    case Step::CreateCompletionQueue: return next_admin(Step::CreateSubmissionQueue, now);
    case Step::CreateSubmissionQueue: return run();
    case Step::Begin:
    case Step::WaitForOldStart:
    case Step::WaitForStop:
    case Step::WaitForStart:
    case Step::Run: return;
    }
}

void Nvme::run() {
    // A command for a disk of before must not reach another one.
    if (knows_disks_ && (has_other_disks_ || found_count_ != namespace_count_))
        return fail("has other disks after a reset");
    knows_disks_ = true;
    namespace_count_ = found_count_;
    // One entry of a queue stays empty.
    free_ = (u64{1} << (io_.entry_count - 1)) - 1;
    step_ = Step::Run;
    state_ = State::Ready;
    deadline_ = never;
}

void Nvme::next_namespace(u64 now) {
    next_admin(asked_ < listed_count_ ? Step::IdentifyNamespace : Step::SetQueueCount, now);
}

// [nvme/1.4] 5.15.2.2
void Nvme::read_controller() {
    u8 const* const data = page(identify_page);
    common_ = {};
    copy_printable(common_.serial, {data + 4, 20}); // [nvme/1.4] 1.5
    copy_printable(common_.model, {data + 24, 40});
    u8 const shift = data[77]; // MDTS: of the smallest page; 0: no limit
    constexpr u32 most = 512 * lib::KiB;
    u32 const bytes = shift == 0 || shift > 7 ? most : std::min<u32>(most, static_cast<u32>(lib::page_size) << shift);
    if (knows_disks_ && bytes < most_bytes_) has_other_disks_ = true; // commands of the old size still come
    if (!knows_disks_) most_bytes_ = bytes;
    announced_ = load<u32>(data + 516);
    common_.has_write_cache = (data[525] & 1) != 0;
}

void Nvme::read_list() {
    u8 const* const data = page(identify_page);
    for (listed_count_ = 0; listed_count_ < max_namespaces; listed_count_++) {
        u32 const id = load<u32>(data + listed_count_ * sizeof(u32));
        if (id == 0) return;
        // The list ascends. An id twice would be one disk under two names. [nvme/1.4] 5.15.2.3
        if (id == every_namespace || (listed_count_ != 0 && id <= listed_[listed_count_ - 1]))
            return function_.log("its list of namespaces is out of order");
        listed_[listed_count_] = id;
    }
    if (load<u32>(data + listed_count_ * sizeof(u32)) != 0) function_.log("it has more namespaces than are used");
}

// [nvme/1.4] 5.15.2.1
void Nvme::read_namespace() {
    u8 const* const data = page(identify_page);
    u64 const size = load<u64>(data);
    if (size == 0) return; // it is not active
    u8 const highest_format = data[25], in_use = data[26];
    u32 index = in_use & 0xfU;
    if (highest_format > 0xf) index |= (in_use >> 5 & 3U) << 4; // [nvme/nvm-1.0] 4.1.5.1
    u32 const format = load<u32>(data + 128 + index * 4);
    u32 const metadata = format & 0xffff, exponent = format >> 16 & 0xff;
    char text[80];
    u32 const id = listed_[asked_];
    if (metadata != 0 || exponent < 9 || exponent > 12)
        return function_.log(lib::format_to(text, "namespace {} is left out: its format is not supported", id));
    DiskFacts facts = common_;
    facts.id = id;
    facts.sector_size = 1U << exponent;
    facts.sectors = std::min(size, ~u64{0} >> exponent);
    facts.is_read_only = (data[99] & 1) != 0;
    u32 const disk = found_count_++;
    if (knows_disks_) {
        DiskFacts const& before = facts_[disk];
        has_other_disks_ |= ids_[disk] != id || before.sector_size != facts.sector_size ||
                            before.sectors != facts.sectors || before.serial != facts.serial ||
                            before.has_write_cache != facts.has_write_cache;
        return;
    }
    ids_[disk] = id;
    facts_[disk] = facts;
}

} // namespace block
