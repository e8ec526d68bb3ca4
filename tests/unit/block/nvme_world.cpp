// SPDX-License-Identifier: MIT
#include "nvme_world.hpp"

#include <algorithm>

namespace block_test {

NvmeWorld::NvmeWorld(NvmeSetup const& setup) : fake(setup), driver(fake) {
    for (NvmeNamespace const& one : setup.namespaces)
        if (one.sectors != 0 && one.metadata == 0 && one.exponent >= 9 && one.exponent <= 12 && !one.is_refused)
            ids.push_back(one.id);
}

NvmeWorld::~NvmeWorld() {
    for (std::string const& violation : fake.violations)
        ADD_FAILURE() << "the driver broke a rule: " << violation;
    if (driver.state() == State::Failed) {
        EXPECT_FALSE(fake.is_bus_master()) << "a controller that failed may still write memory";
        EXPECT_FALSE(driver.failure().empty());
    }
}

u32 NvmeWorld::poll() {
    std::array<block::Ended, 64> ended;
    polls++;
    u32 const count = driver.poll(fake.now, std::span(ended).first(room));
    EXPECT_LE(count, room);
    for (u32 i = 0; i < count; i++) {
        EXPECT_EQ(fake.live.erase(ended[i].tag), 1U) << "tag " << ended[i].tag << " ended though it was not under way";
        ends.push_back({ended[i].tag, ended[i].status, fake.now});
    }
    return count;
}

void NvmeWorld::turn() {
    fake.step();
    bool const has_news = fake.take_interrupt();
    bool const is_interrupted = has_news && has_interrupts;
    idle_turns_ = has_news ? 0 : idle_turns_ + 1;
    if (!is_interrupted && fake.now < driver.deadline()) return;
    for (u32 again = 0; poll() == room; again++) // it must be called again
        if (again > 64) return;
}

// A device that has something to do needs microseconds; otherwise nothing happens before the driver's next deadline.
void NvmeWorld::pass_time(u64 limit) {
    constexpr u64 step = 20;
    u64 const next = std::max(fake.now + step, driver.deadline());
    fake.now = std::min(limit, fake.has_work() && idle_turns_ < 2000 ? fake.now + step : next);
}

bool NvmeWorld::submit(Operation operation, u32 disk, u64 sector, std::vector<Piece> const& pieces) {
    u32 const tag = tag_++;
    if (!driver.submit({operation, disk, tag, sector, pieces}, fake.now)) return false;
    fake.expected.push_back({tag, operation, disk < ids.size() ? ids[disk] : 0, sector, pieces});
    EXPECT_TRUE(fake.live.insert(tag).second);
    return true;
}

bool NvmeWorld::submit_page(Operation operation, u32 index) {
    u32 const size = static_cast<u32>(lib::page_size);
    u64 const per_page = lib::page_size / driver.disks()[0].sector_size;
    return submit(operation, 0, index * per_page, {{ram_begin + index * lib::page_size, size}});
}

std::size_t NvmeWorld::good() const {
    return static_cast<std::size_t>(
        std::count_if(ends.begin(), ends.end(), [](End const& end) { return end.status == Status::Good; }));
}

bool NvmeWorld::has_logged(std::string_view part) const {
    return std::any_of(fake.lines.begin(), fake.lines.end(),
                       [part](std::string const& line) { return line.find(part) != std::string::npos; });
}

} // namespace block_test
