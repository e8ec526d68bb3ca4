// SPDX-License-Identifier: MIT
// The start of an AHCI controller and of its disks, and a disk's way back after a reset. [ahci/1.3.1] 10
#include <algorithm>
#include <cstring>

#include "ahci_layout.hpp"
#include "ata_identify.hpp"

namespace block {

using namespace ahci;
using namespace ata;

namespace {

using Words = std::array<u16, ata::identify_words>;

} // namespace

void Ahci::start(u64 now) {
    u64 const elapsed = now - step_begin_;
    switch (step_) {
    case Step::Begin: return begin(now);
    case Step::WaitForReset: {
        u32 const control = read(GHC);
        if (control == ~0U) return fail("is gone");
        if ((control & ghc_reset) == 0) return set_up(now);
        if (elapsed >= milliseconds(1'000)) fail("does not come back from a reset"); // [ahci/1.3.1] 10.4.3
        return;
    }
    case Step::LookForDisks: return look_for_disks(now);
    case Step::StartDisks:
        if (read(GHC) == ~0U) return fail("is gone");
        for (Unit& unit : units())
            go_on(unit, 0, now);
        return run();
    }
}

void Ahci::begin(u64 now) {
    if (function_.bar_size(5) < port_begin + port_size) return fail("has no registers");
    if (shared_.bytes.size() < shared_pages * lib::page_size) return fail("got too little memory");
    Cap const cap{{read(CAP)}};
    if (cap.raw == ~0U) return fail("does not answer");
    is_wide_ = cap.get<Cap::S64A>();
    has_queues_ = cap.get<Cap::SNCQ>();
    controller_slots_ = cap.get<Cap::NCS>() + 1;
    if (!is_wide_ && shared_.address + shared_pages * lib::page_size > 4 * lib::GiB)
        return fail("got memory above 4 GiB");
    write(GHC, ghc_enable);
    write(GHC, ghc_enable | ghc_reset);
    step_ = Step::WaitForReset;
    step_begin_ = now;
}

// All ports have stopped: nothing is left of what others began.
void Ahci::set_up(u64 now) {
    write(GHC, ghc_enable);
    u64 const room = (function_.bar_size(5) - port_begin) / port_size;
    u32 const possible = room >= max_ports ? ~0U : (1U << room) - 1;
    ports_ = read(PI) & possible;
    function_.set_bus_master(true);
    step_begin_ = now;
    if (is_known_) {
        step_ = Step::StartDisks;
        for (Unit& unit : units()) {
            if (unit.phase == Phase::Dead) continue;
            set_up_port(unit.port);
            unit.phase = Phase::Link;
            unit.begin = now;
        }
        return;
    }
    unit_count_ = 0;
    unseen_ = ports_;
    found_ = 0;
    step_ = Step::LookForDisks;
    for (u32 port = 0; port < max_ports; port++)
        if ((ports_ >> port & 1) != 0) set_up_port(port);
}

// Lets the link come up, and the disk say what it is.
void Ahci::set_up_port(u32 port) {
    write_port(port, PxIE, 0);
    write_port(port, PxSCTL, no_power_states);
    write_address(port, PxFB, shared_.address + first_fis_page * lib::page_size + port * u64{fis_size});
    write_port(port, PxCMD, SUD | POD | FRE);
}

Ahci::Link Ahci::link_of(u32 port, u64 elapsed) {
    constexpr u64 detection = 300, communication = 1'000; // ms
    u32 const detected = read_port(port, PxSSTS) & det_mask;
    if (detected != det_ready)
        return elapsed >= milliseconds(detected == 0 ? detection : communication) ? Link::Absent : Link::Waiting;
    if ((read_port(port, PxTFD) & (BSY | DRQ)) == 0) return Link::Ready;
    write_port(port, PxSERR, ~0U); // with DIAG.X in it, the disk's first FIS is not taken
    return elapsed >= milliseconds(ready_seconds * 1'000) ? Link::Absent : Link::Waiting;
}

void Ahci::look_for_disks(u64 now) {
    if (read(GHC) == ~0U) return fail("is gone");
    for (u32 port = 0; port < max_ports; port++) {
        u32 const bit = 1U << port;
        if ((unseen_ & bit) == 0) continue;
        Link const link = link_of(port, now - step_begin_);
        if (link == Link::Waiting) continue;
        unseen_ &= ~bit;
        if (link == Link::Ready && read_port(port, PxSIG) == signature_ata)
            found_ |= bit;
        else
            write_port(port, PxCMD, SUD | POD);
    }
    if (unseen_ != 0) return;
    for (u32 port = 0; port < max_ports; port++)
        if ((found_ >> port & 1) != 0) add_unit(port);
    for (Unit& unit : units())
        identify(unit, now);
    step_ = Step::StartDisks;
    run();
}

void Ahci::add_unit(u32 port) {
    if (unit_count_ == max_disks) {
        char text[80];
        return function_.log(lib::format_to(text, "the disk at port {} is left out: there are too many", port));
    }
    Unit& unit = units_[unit_count_];
    unit = {};
    unit.port = port;
    unit.memory = unit_count_++;
}

void Ahci::look_for_link(Unit& unit, u64 now) {
    Link const link = link_of(unit.port, now - unit.begin);
    if (link == Link::Waiting) return;
    if (link == Link::Absent || read_port(unit.port, PxSIG) != signature_ata) return die(unit, "it did not come back");
    identify(unit, now);
}

// Starts the port with its first command, which takes only the first slot.
void Ahci::identify(Unit& unit, u64 now) {
    write_address(unit.port, PxCLB, shared_.address + list_at(unit));
    write_port(unit.port, PxSERR, ~0U);
    write_port(unit.port, PxIS, ~0U);
    write_port(unit.port, PxCMD, SUD | POD | FRE | ST);
    u8* const data = shared_.bytes.data() + identify_at(unit);
    std::memset(data, 0, identify_words * sizeof(u16));
    Piece const piece{.address = shared_.address + identify_at(unit), .size = identify_words * sizeof(u16)};
    build_simple(unit, 0, IDENTIFY_DEVICE, {&piece, 1});
    __atomic_thread_fence(__ATOMIC_RELEASE);
    write_port(unit.port, PxCI, 1);
    unit.phase = Phase::Identify;
    unit.limit = now + milliseconds(command_seconds * 1'000);
}

void Ahci::look_for_identify(Unit& unit, u64 now) {
    bool const has_failed = (read_port(unit.port, PxIS) & command_errors) != 0;
    bool const is_done = (read_port(unit.port, PxCI) & 1) == 0;
    bool const is_bad = has_failed || (is_done && (read_port(unit.port, PxTFD) & (ERR | DF)) != 0);
    if (is_bad || (!is_done && now >= unit.limit)) {
        std::string_view const why = is_bad ? "it does not say what it is" : "it does not answer";
        return is_known_ ? recover(unit, now, why, true) : leave_out(unit, why);
    }
    if (!is_done) return;
    DiskFacts& known = facts_[static_cast<u32>(&unit - units_.data())];
    DiskFacts facts{};
    std::string_view const why = read_facts(unit, facts);
    if (!is_known_) {
        if (!why.empty()) return leave_out(unit, why);
        known = facts;
    } else if (!why.empty() || facts.sectors != known.sectors || facts.sector_size != known.sector_size ||
               facts.serial != known.serial || facts.model != known.model) {
        return die(unit, "another disk is there");
    }
    write_port(unit.port, PxIS, ~0U);
    write(IS, 1U << unit.port);
    write_port(unit.port, PxIE, wanted_interrupts);
    unit.phase = Phase::Run;
}

// Returns why it cannot be used. [ata/8-acs] 7.16.7
std::string_view Ahci::read_facts(Unit& unit, DiskFacts& facts) {
    Words words{};
    std::memcpy(words.data(), shared_.bytes.data() + identify_at(unit), sizeof(words));
    if (has_bit(words, 0, 15)) return "it is not a disk";
    if (!has_bit(words, 49, 8) || !has_bit(words, 49, 9)) return "it has no DMA or no LBA";
    if (!has_meaning(words, 83) || !has_bit(words, 83, 10)) return "it has no addresses of 48 bits";
    facts.id = unit.port;
    facts.sector_size = 512;
    if (has_meaning(words, 106) && has_bit(words, 106, 12)) {
        u32 const size = words[117] | u32{words[118]} << 16; // in words
        if (size != 256 && size != 512 && size != 1024 && size != 2048) return "its sectors have another size";
        facts.sector_size = size * 2;
    }
    facts.sectors = words[100] | u64{words[101]} << 16 | u64{words[102]} << 32 | u64{words[103]} << 48;
    facts.sectors = std::min(facts.sectors, u64{1} << 48);
    if (facts.sectors == 0) return "it has no sectors";
    facts.has_write_cache = has_bit(words, 85, 5);
    copy_text(facts.serial, std::span(words).subspan(10, 10));
    copy_text(facts.model, std::span(words).subspan(27, 20));
    unit.flush_command = has_bit(words, 83, 13) ? FLUSH_CACHE_EXT : has_bit(words, 83, 12) ? FLUSH_CACHE : u8{0};
    bool const has_word_76 = words[76] != 0 && words[76] != 0xffff;
    unit.is_queued = has_queues_ && has_word_76 && has_bit(words, 76, 8);
    unit.depth = unit.is_queued ? std::min((words[75] & 0x1fU) + 1, controller_slots_) : 1;
    return {};
}

void Ahci::leave_out(Unit& unit, std::string_view why) {
    char text[120];
    say(unit, lib::format_to(text, "left out: {}", why));
    write_port(unit.port, PxCMD, SUD | POD | FRE);
    unit.phase = Phase::Dead;
}

// Ends the start when each disk works or does not.
void Ahci::run() {
    for (Unit const& unit : units())
        if (unit.phase != Phase::Run && unit.phase != Phase::Dead) return;
    if (!is_known_) {
        u32 count = 0;
        for (u32 i = 0; i < unit_count_; i++) {
            if (units_[i].phase == Phase::Dead) continue;
            units_[count] = units_[i];
            facts_[count++] = facts_[i];
        }
        unit_count_ = count;
        is_known_ = true;
    }
    state_ = State::Ready;
    write(GHC, ghc_enable | ghc_interrupts);
}

} // namespace block
