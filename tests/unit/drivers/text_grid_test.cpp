// SPDX-License-Identifier: MIT
#include <drivers/text_grid.hpp>

#include <array>
#include <gtest/gtest.h>
#include <string>

namespace {

using drivers::TextGrid;
using lib::u16;
using lib::u32;

class Grid : public ::testing::Test {
protected:
    std::array<u16, 40> cells{};
    TextGrid grid{cells};
    std::string text(u32 row) const {
        std::string result;
        for (u16 const cell : grid.line(row))
            result.push_back(static_cast<char>(cell & 0xff));
        return result;
    }
    void SetUp() override { grid.resize(10, 3); }
};

TEST_F(Grid, BreaksLinesAtTheEdgeWithTheNextCharacter) {
    grid.write("0123456789");
    EXPECT_EQ(grid.row(), 0U);
    grid.write("\nab");
    EXPECT_EQ(text(1), "ab        ");
    grid.write("cdefghijKL");
    EXPECT_EQ(text(2), "KL        ");
}

TEST_F(Grid, Scrolls) {
    grid.write("one\ntwo\nthree\nfour");
    EXPECT_EQ(text(0), "two       ");
    EXPECT_EQ(text(1), "three     ");
    EXPECT_EQ(text(2), "four      ");
}

TEST_F(Grid, KnowsCarriageReturnBackspaceAndTab) {
    grid.write("abc\rX\b\bY\tz");
    EXPECT_EQ(text(0), "Y       z ");
    grid.write("\t\t");
    EXPECT_EQ(grid.row(), 1U);
}

TEST_F(Grid, ShowsWhatIsNotPrintableAsAQuestionMark) {
    grid.write("a\x1b[\x7f\xe4");
    EXPECT_EQ(text(0).substr(0, 5), "a?[?\xe4");
}

TEST_F(Grid, GivesNewCellsTheCurrentColours) {
    grid.set_colours(drivers::Colour::White, drivers::Colour::Red);
    grid.write("a");
    EXPECT_EQ(grid.line(0)[0], 0x4f61);
    EXPECT_EQ(grid.line(0)[1], 0x0720);
}

TEST_F(Grid, TellsWhichRowsChanged) {
    auto const changed = [&] {
        auto const rows = grid.take_changed();
        return std::pair{rows.begin, rows.end};
    };
    EXPECT_EQ(changed(), std::pair(0U, grid.rows())); // all are new
    EXPECT_EQ(changed(), std::pair(0U, 0U));
    grid.write("\na");
    EXPECT_EQ(changed(), std::pair(1U, 2U));
    grid.write("\r");
    EXPECT_EQ(changed(), std::pair(0U, 0U));
    grid.write("b\nc");
    EXPECT_EQ(changed(), std::pair(1U, 3U));
    grid.write("\n\n\n\n\n\n");
    EXPECT_EQ(changed(), std::pair(0U, grid.rows())); // scrolled
}

TEST_F(Grid, IsCutToItsCells) {
    grid.resize(20, 100);
    EXPECT_EQ(grid.rows(), 2U);
    grid.resize(1000, 1000);
    EXPECT_EQ(grid.columns() * grid.rows(), 40U);
    grid.resize(0, 5);
    grid.write("text\t\n");
    EXPECT_EQ(grid.rows(), 0U);
}

} // namespace
