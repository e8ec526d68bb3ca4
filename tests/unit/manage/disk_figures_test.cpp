// SPDX-License-Identifier: MIT
// What the operator sees of a guest's disk, whatever the storage service says.
#include <gtest/gtest.h>
#include <manage/disk_figures.hpp>
#include <string>

namespace {

using lib::u32;
using lib::u64;
using manage::DiskFigures;

class StringSink final : public lib::TextSink {
public:
    void write(std::string_view more) override { text += more; }
    std::string text;
};

std::string shown(config::DiskDescription const& disk, DiskFigures const& figures) {
    StringSink sink;
    for (u32 line = 0; line < manage::disk_figure_lines; line++)
        manage::print_disk_figures(sink, "web", 1, disk, figures, line);
    return sink.text;
}

TEST(DiskFigures, ADiskOfAVmThatDoesNotRunHasNoNumbers) {
    config::DiskDescription disk{.size = 8 * lib::MiB};
    EXPECT_EQ(shown(disk, {}), "web disk 1: memory, 8192 KiB\n  no limit of rate\n  not in use: its VM does not run\n");
    disk.iops = 50;
    disk.is_read_only = true;
    EXPECT_EQ(shown(disk, {}), "web disk 1: memory, 8192 KiB, read-only\n  at most 50 requests a second\n"
                               "  not in use: its VM does not run\n");
    disk.bandwidth = 10 * lib::MiB;
    EXPECT_NE(shown(disk, {}).find("  at most 50 requests and 10240 KiB a second\n"), std::string::npos);
    disk.iops = 0;
    EXPECT_NE(shown(disk, {}).find("  at most 10240 KiB a second\n"), std::string::npos);
}

TEST(DiskFigures, RequestsBytesErrorsDepthAndLatency) {
    config::DiskDescription const disk{.kind = config::DiskKind::Partition, .name = "root"};
    DiskFigures figures{.is_attached = true, .size = lib::GiB};
    EXPECT_EQ(shown(disk, figures).find("latency"), std::string::npos) << "there is none yet";
    figures.said.requests[0] = 100;
    figures.said.requests[2] = 2;
    figures.said.bytes[0] = 400 * lib::KiB;
    figures.said.errors = 1;
    figures.said.under_way = 3;
    figures.said.most_under_way = 32;
    figures.said.latencies[0][3] = 90;
    figures.said.latencies[0][5] = 10;
    figures.said.latencies[2][5] = 2;
    EXPECT_EQ(shown(disk, figures), "web disk 1: partition root, 1048576 KiB\n"
                                    "  no limit of rate\n"
                                    "  requests             number        KiB\n"
                                    "  reads                   100        400\n"
                                    "  writes                    0          0\n"
                                    "  flushes                   2          0\n"
                                    "  clears                    0          0\n"
                                    "  others                    0          0\n"
                                    "  errors 1, under way 3, at most 32\n"
                                    "  latency               reads     writes    flushes\n"
                                    "  below 8 us               90          0          0 ######################\n"
                                    "  below 16 us               0          0          0\n"
                                    "  below 32 us              10          0          2 ###\n");
}

TEST(DiskFigures, NoNumberMakesALineLongerThanATerminal) {
    config::DiskDescription const disk{.size = lib::MiB, .iops = ~0U, .bandwidth = ~u64{0}};
    for (u64 const number : {~u64{0}, u64{9'999'999'999}, u64{10'000'000'000}, u64{999'999'999'999}, ~u64{0} / 3}) {
        DiskFigures figures{.is_attached = true, .size = ~u64{0}};
        u64* const words = reinterpret_cast<u64*>(&figures.said);
        std::fill_n(words, sizeof(figures.said) / sizeof(u64), number);
        std::string const text = shown(disk, figures);
        std::size_t lines = 0;
        for (std::size_t at = 0; at < text.size(); lines++) {
            std::size_t const end = text.find('\n', at);
            ASSERT_NE(end, std::string::npos);
            EXPECT_LE(end - at, 80U) << text.substr(at, end - at);
            at = end + 1;
        }
        EXPECT_EQ(lines, manage::disk_figure_lines) << text;
    }
}

} // namespace
