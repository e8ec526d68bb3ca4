// SPDX-License-Identifier: MIT
// The start of a bus-master IDE controller, and its way back after a reset: a software reset of both channels, then
// drive by drive.
#include <algorithm>
#include <cstring>

#include "ata_identify.hpp"
#include "ide_layout.hpp"

namespace block {

using namespace ata;
using namespace ide;

namespace {

constexpr u64 absent_pause = 10; // ms, after which a status that no drive would have is believed

// What a bus without a drive shows, and a first drive that answers for a missing second one.
bool is_nothing(u8 status) { return status == 0xff || status == 0x7f || status == 0; }

} // namespace

void Ide::wait(Step step, u64 now, u64 pause, u64 limit) {
    step_ = step;
    step_begin_ = now;
    step_limit_ = now + milliseconds(limit);
    deadline_ = not_before_ = now + milliseconds(pause);
}

void Ide::start(u64 now) {
    if (now < not_before_) return;
    deadline_ = now + milliseconds(1);
    switch (step_) {
    case Step::Begin: return begin(now);
    case Step::EndReset: return end_reset(now);
    case Step::SelectFirst: return next_drive(0, now);
    case Step::WaitForDrive: return look_for_drive(now);
    case Step::WaitForIdentify: return look_for_identify(now);
    case Step::WaitForIdle: return look_for_idle(now);
    }
}

void Ide::begin(u64 now) {
    if (function_.bar_size(4) < 16) return fail("has no bus master");
    if (shared_.bytes.size() < shared_pages * lib::page_size) return fail("got too little memory");
    if (shared_.address + shared_pages * lib::page_size > 4 * lib::GiB) return fail("got memory above 4 GiB");
    for (u32 i = 0; i < channel_count; i++) {
        Channel& channel = channels_[i];
        channel.is_present = function_.bar_size(2 * i) >= 8 && function_.bar_size(2 * i + 1) > 2;
        if (!channel.is_present) continue;
        write_master(i, master_command, 0);
        channel.kept = read_master(i, master_status) & MasterStatus::kept;
        write_control(i, control_reset);
    }
    wait(Step::EndReset, now, 1, 0); // at least 5 us. [ata/7-vol2] SRST
}

void Ide::end_reset(u64 now) {
    for (u32 i = 0; i < channel_count; i++)
        if (channels_[i].is_present) write_control(i, 0);
    wait(Step::SelectFirst, now, 3, 0); // at least 2 ms. [ata/7-vol2] SRST
}

bool Ide::is_known() const {
    return std::ranges::any_of(std::span(drives_).first(disk_count_),
                               [this](Drive const& drive) { return drive.slot == slot_; });
}

void Ide::next_drive(u32 first, u64 now) {
    for (slot_ = first; slot_ < max_drives; slot_++) {
        if (!channels_[slot_ / 2].is_present || (is_recovering_ && !is_known())) continue;
        return select_for_start(now);
    }
    run();
}

void Ide::select_for_start(u64 now) {
    u32 const channel = slot_ / 2;
    channels_[channel].selected = slot_ % 2;
    write8(2 * channel, DEVICE, 0xa0 | (slot_ % 2 != 0 ? device_second : 0));
    wait(Step::WaitForDrive, now, 1, reset_seconds * 1'000);
}

void Ide::leave_out(std::string_view why) {
    char text[120];
    function_.log(lib::format_to(text, "drive {} of channel {} is left out: {}", slot_ % 2, slot_ / 2, why));
    for (Drive& drive : std::span(drives_).first(disk_count_))
        if (drive.slot == slot_) drive.is_gone = true;
}

void Ide::look_for_drive(u64 now) {
    u32 const bar = 2 * (slot_ / 2);
    DriveStatus const status{{read_alternate(slot_ / 2)}};
    if (is_nothing(status.raw)) {
        if (now - step_begin_ < milliseconds(absent_pause)) return;
        if (is_recovering_) leave_out("it is gone");
        return next_drive(slot_ + 1, now);
    }
    if (!status.is_idle()) {
        if (now < step_limit_) return;
        leave_out("it stays busy after a reset");
        return next_drive(slot_ + 1, now);
    }
    if (is_recovering_) return next_drive(slot_ + 1, now);
    u32 const signature = read8(bar, LBA_MID) | u32{read8(bar, LBA_HIGH)} << 8;
    if (signature != 0 && signature != 0xc33c) return next_drive(slot_ + 1, now); // ATAPI, or nothing
    write8(bar, COMMAND, IDENTIFY_DEVICE);
    wait(Step::WaitForIdentify, now, 1, command_seconds * 1'000);
}

void Ide::look_for_identify(u64 now) {
    u32 const bar = 2 * (slot_ / 2);
    DriveStatus const status{{read_alternate(slot_ / 2)}};
    bool const is_busy = status.get<DriveStatus::BSY>(), has_data = !is_busy && status.get<DriveStatus::DRQ>();
    bool const is_refused = !is_busy && !has_data && status.has_failed();
    if (is_refused || (!has_data && now >= step_limit_)) {
        (void)read8(bar, STATUS); // takes the interrupt back
        leave_out(is_refused ? "it does not say what it is" : "it does not answer");
        return next_drive(slot_ + 1, now);
    }
    if (!has_data) return;
    std::array<u16, identify_words> words{};
    for (u16& word : words)
        word = static_cast<u16>(function_.read(bar, DATA, 2));
    (void)read8(bar, STATUS);
    take_identify(words);
    wait(Step::WaitForIdle, now, 1, 1'000);
}

void Ide::look_for_idle(u64 now) {
    if (!DriveStatus{{read_alternate(slot_ / 2)}}.is_idle()) {
        if (now < step_limit_) return;
        leave_out("it stays busy after a command");
        if (is_known()) disk_count_--; // it was the last one
    }
    next_drive(slot_ + 1, now);
}

// [ata/8-acs] 7.16.7
void Ide::take_identify(std::span<u16 const> words) {
    constexpr u16 compact_flash = 0x848a;
    if (has_bit(words, 0, 15) && words[0] != compact_flash) return leave_out("it is not a disk");
    if (!has_bit(words, 49, 8)) return leave_out("it has no DMA");
    if (!has_bit(words, 49, 9)) return leave_out("it has no LBA");
    // Some announce longer sectors without the bit for them.
    u32 const sector_words = words[117] | u32{words[118]} << 16;
    if (has_meaning(words, 106) && (has_bit(words, 106, 12) || sector_words != 0) && sector_words != sector_size / 2)
        return leave_out("its sectors do not have 512 bytes");
    Drive drive{};
    drive.slot = static_cast<u8>(slot_);
    if (has_meaning(words, 83)) {
        drive.has_lba48 = has_bit(words, 83, 10);
        drive.has_flush = has_bit(words, 83, 12);
        drive.has_flush_ext = drive.has_lba48 && has_bit(words, 83, 13);
    }
    DiskFacts facts{};
    facts.id = slot_;
    facts.sectors = words[60] | u64{words[61]} << 16;
    if (drive.has_lba48)
        facts.sectors = words[100] | u64{words[101]} << 16 | u64{words[102]} << 32 | u64{words[103]} << 48;
    facts.sectors = std::min(facts.sectors, drive.has_lba48 ? u64{1} << 48 : most_short_sectors);
    if (facts.sectors == 0) return leave_out("it has no sectors");
    facts.sector_size = sector_size;
    if (has_meaning(words, 87))
        facts.has_write_cache = has_bit(words, 85, 5); // on
    else
        facts.has_write_cache = has_meaning(words, 83) && has_bit(words, 82, 5); // possible
    copy_text(facts.serial, words.subspan(10, 10));
    copy_text(facts.model, words.subspan(27, 20));
    drives_[disk_count_] = drive;
    facts_[disk_count_++] = facts;
}

// The bus masters have been stopped and the drives reset: nothing is left of what others began.
void Ide::run() {
    auto const known = std::span(drives_).first(disk_count_);
    if (is_recovering_ && std::ranges::all_of(known, &Drive::is_gone)) return fail("has lost all its disks");
    for (u32 i = 0; i < channel_count; i++)
        if (channels_[i].is_present) write_master(i, master_status, channels_[i].kept | MasterStatus::write_to_clear);
    function_.set_bus_master(true);
    state_ = State::Ready;
    deadline_ = never;
}

} // namespace block
